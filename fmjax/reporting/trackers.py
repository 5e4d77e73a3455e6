"""Trackers beside the JSON lines: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from fmjax.config import ConfigError

Tracker = tuple[Callable, Callable]  # track(step, numbers), end()


def start(
    log: Any,
    workdir: str | pathlib.Path,
    config: Mapping[str, Any],
    say: Callable[[str], None],
) -> list[Tracker]:
    """The trackers that `log` (a train.Log) asks for; `say` tells of one that fails.

    A server that is out of reach ends no run: all its numbers are in the workdir.
    Raises ConfigError naming the extra where a package is absent.
    """
    asked = (
        (log.tensorboard, lambda: _tensorboard(workdir)),
        (log.wandb, lambda: _wandb(workdir, log.wandb, config)),
        (log.mlflow, lambda: _mlflow(log.mlflow, config)),
    )
    opened = []
    for wanted, begin in asked:
        if wanted:
            try:
                opened.append(begin())
            except ConfigError:
                raise
            except Exception as error:
                say(f"tracker left out from the start on: {error!r}")
    return opened


def _package(name: str, setting: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"log.{setting} needs {name}: pip install 'fmjax[tracking]'"
        ) from error


def _tensorboard(workdir):
    writer = _package("tensorboardX", "tensorboard").SummaryWriter(str(workdir))

    def track(step, numbers):
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return track, writer.close


def _wandb(workdir, project, config):
    wandb = _package("wandb", "wandb")
    run = wandb.init(project=project, dir=str(workdir), config=dict(config or {}))
    return (lambda step, numbers: run.log(dict(numbers), step=step)), run.finish


def _mlflow(experiment, config):
    mlflow = _package("mlflow", "mlflow")
    mlflow.set_experiment(experiment)
    mlflow.log_params({key: str(value) for key, value in (config or {}).items()})
    clean = lambda name: name.replace("/", ".")  # noqa: E731

    def track(step, numbers):
        mlflow.log_metrics({clean(k): v for k, v in numbers.items()}, step=step)

    return track, mlflow.end_run
