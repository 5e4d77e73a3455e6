"""Being asked to stop: SIGTERM (preemption) and SIGINT (Ctrl-C) end a run alike.

The run saves the step it is at and exits with 75, EX_TEMPFAIL of sysexits.h: the same
command goes on from there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def preemption():
    """Yields asked(step) -> bool: has SIGTERM or SIGINT come, on any process?

    Several processes agree on the step through jax's coordination service, which
    listens for SIGTERM itself; a SIGINT is handed on to it as one.
    """
    came = threading.Event()
    old: dict[int, Any] = {}
    wanted: dict[int, Callable] = {}
    if jax.process_count() > 1:
        asked: Callable[[int], bool] = multihost_utils.reached_preemption_sync_point
        wanted[signal.SIGINT] = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    else:
        asked = lambda step: came.is_set()  # noqa: E731
        wanted |= dict.fromkeys((signal.SIGTERM, signal.SIGINT), lambda *_: came.set())
    if threading.current_thread() is threading.main_thread():
        old = {name: signal.signal(name, do) for name, do in wanted.items()}
    try:
        yield asked
    finally:
        for name, handler in old.items():
            signal.signal(name, handler)
