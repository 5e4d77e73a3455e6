"""Being asked to stop: SIGTERM (preemption) and SIGINT (Ctrl-C) end a run alike.

The run saves the step it is at and exits with 75, EX_TEMPFAIL of sysexits.h: the same
command goes on from there.
"""

from __future__ import annotations

import contextlib
import signal
import threading

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def preemption():
    """Yields asked(step) -> bool: has SIGTERM or SIGINT come, on any process?

    Several processes agree on the step through jax's coordination service, which
    listens for SIGTERM itself.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    came = threading.Event()
    old = {}
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGTERM, signal.SIGINT):
            old[name] = signal.signal(name, lambda *_: came.set())
    try:
        yield lambda step: came.is_set()
    finally:
        for name, handler in old.items():
            signal.signal(name, handler)
