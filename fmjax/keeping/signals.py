"""Being asked to stop: SIGTERM (preemption) and SIGINT (Ctrl-C) end a run alike.

The run saves the step it is at and exits with 75, EX_TEMPFAIL of sysexits.h: the same
command goes on from there. Before there is a step to save, SIGTERM ends it at once,
with the same 75.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Within, SIGTERM ends the process with 75, until `preemption` takes over.

    A program may be compiled for minutes, in which no handler of Python's runs, so
    that a thread hears of the signal. Among several processes jax listens: the run
    begins, saves and ends with 75.
    """
    main = threading.current_thread() is threading.main_thread()
    if jax.process_count() > 1 or not main:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        while came := os.read(reading, 1)[0]:  # a signal's number; 0: it is over
            if came == signal.SIGTERM:
                os.write(2, b"fmjax: stopped before a step; give the command again\n")
                os._exit(75)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    old = signal.signal(signal.SIGTERM, lambda *_: None)
    other = signal.set_wakeup_fd(writing)
    try:
        yield
    finally:
        signal.set_wakeup_fd(other)
        signal.signal(signal.SIGTERM, old)
        os.write(writing, b"\0")
        thread.join()
        os.close(writing)
        os.close(reading)


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
    main = threading.current_thread() is threading.main_thread()
    if main:
        old = {name: signal.signal(name, do) for name, do in wanted.items()}
        heard = signal.set_wakeup_fd(-1)  # `starting` hears no more
    try:
        yield asked
    finally:
        for name, handler in old.items():
            signal.signal(name, handler)
        if main:
            signal.set_wakeup_fd(heard)
