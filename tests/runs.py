"""What tests of whole runs share: tiny configs, and a run that stops on its own."""

import os
import pathlib
import re

from fmjax import config, report
from fmjax.train import train

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "configs").glob("*/*.py")
    if path.name != "__init__.py"
)


def tiny(name: str, **overrides) -> dict:
    """A config's ':tiny' settings with a record a step; keys have __ for dots."""
    dotted = {key.replace("__", "."): str(value) for key, value in overrides.items()}
    settings = config.load(f"{ROOT / name}:tiny", {"log.every": "1"} | dotted)
    if "dropout" in settings["model"] and not any("dropout" in key for key in dotted):
        for name in ("dropout", "attention_dropout", "embed_dropout"):
            if name in settings["model"]:
                settings["model"][name] = 0.0
    return settings


def flags(devices: int) -> str:
    """XLA_FLAGS as here, with another number of simulated devices."""
    return re.sub(r"(device_count)=\d+", rf"\1={devices}", os.environ["XLA_FLAGS"])


def run(workdir, settings, stop_at=None, **changes) -> dict:
    """train(), stopped as if by a signal once `stop_at` steps are done."""
    return train(workdir, **(settings | changes), stop_at=stop_at)


def losses(workdir, name="train/loss") -> list[float]:
    return [line[name] for line in report.read(workdir) if name in line]
