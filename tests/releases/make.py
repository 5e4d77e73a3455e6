"""Writes the fixture of this release: `python -m tests.releases.make`, once for each.

Two runs stopped half-way, a net of images and a transformer with dropout, as
tests/releases/VERSION-FAMILY.zip: config, checkpoint and record, and `straight.json`,
the losses of the same run when it is not stopped. tests/test_releases.py goes on with
every one of them, whatever version is current by then.
"""

import json
import pathlib
import sys
import tempfile
import zipfile

import fmjax
from fmjax import config, report
from fmjax.train import train

HERE = pathlib.Path(__file__).parent
STEPS, STOP = 6, 3
SMALL = {
    "cnn": ("cnn/fashion_mnist", {"model.channels": "(2,)", "model.dense": "4"}),
    "gpt": (
        "gpt/language_model",
        {
            "model.width": "8",
            "model.heads": "2",
            "model.depth": "1",
            "model.mlp_width": "16",
            "model.dropout": "0.1",
        },
    ),
}
LEFT = ("attempts.jsonl", "lock")  # out: they are of a time and of a machine


def losses(workdir: pathlib.Path) -> list[float]:
    return [x["train/loss"] for x in report.read(workdir) if "train/loss" in x]


def main() -> None:
    for family, (name, changed) in SMALL.items():
        always = {"log.every": "1", "steps": str(STEPS), "checkpoint.every": str(STOP)}
        settings = config.load(f"configs/{name}.py:tiny", always | changed)
        with tempfile.TemporaryDirectory() as room:
            straight, cut = pathlib.Path(room, "straight"), pathlib.Path(room, "cut")
            train(straight, **settings)
            train(cut, **settings, stop_at=STOP)
            target = HERE / f"{fmjax.__version__}-{family}.zip"
            with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
                for path in sorted(cut.rglob("*")):
                    inside = path.relative_to(cut).as_posix()
                    if path.is_file() and inside not in LEFT:
                        archive.write(path, inside)
                archive.writestr("straight.json", json.dumps(losses(straight)))
            print(target, target.stat().st_size, file=sys.stderr)


if __name__ == "__main__":
    main()
