"""Processes of their own for what must be killed, forked before jax has any thread."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

FORK = multiprocessing.get_context("fork")


def start(function: Callable, *given: Any) -> tuple[Any, Any]:
    """(process, pipe) of function(*given) in a process of its own."""
    out, into = FORK.Pipe(duplex=False)

    def work():
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        try:
            into.send(json.dumps({"value": function(*given)}))
        except BaseException as error:
            traceback.print_exc()
            into.send(json.dumps({"error": f"{type(error).__name__}: {error}"}))

    process = FORK.Process(target=work)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jax has started nothing yet
        process.start()
    into.close()
    return process, out


def call(function: Callable, *given: Any) -> Any:
    """What function(*given) returns (as JSON) in a process of its own."""
    process, out = start(function, *given)
    try:
        found = json.loads(out.recv())
    finally:
        process.join()
    if "error" in found:
        raise RuntimeError(found["error"])
    return found["value"]


def kill(process: Any, seconds: float = 0.0) -> None:
    """SIGKILL after so long."""
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
