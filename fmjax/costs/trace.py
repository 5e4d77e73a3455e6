"""A profile of some steps: what host and devices did, for xprof or Perfetto."""

from __future__ import annotations

import contextlib
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax

from fmjax.config import ConfigError


def span(asked: str, total: int) -> tuple[int, int]:
    """'10:15' as (10, 15): the steps after the tenth up to the fifteenth.

    Raises ConfigError where it is no such span, or the run has no such steps.
    """
    found = re.fullmatch(r"(\d+):(\d+)", asked)
    first, last = map(int, found.groups()) if found else (0, 0)
    if not first < last <= total:
        raise ConfigError(
            f"--profile {asked}: two steps such as 10:15, the first smaller, of this "
            f"run's {total}"
        )
    return first, last


@contextlib.contextmanager
def tracing(
    workdir: str | pathlib.Path, asked: str | None, total: int
) -> Iterator[Callable]:
    """look(step, state), to be called before each step: begins and ends the trace.

    It goes to workdir/profile: `xprof --logdir` shows it, and ui.perfetto.dev the
    perfetto_trace.json.gz in it. asked: as in `span`; None: nothing is done. A run that
    ends, or goes on, within the span has that part of it; one that goes on past it says
    that it has none. Each of several processes has a folder of its own in it: of two
    processes' traces in one folder jax makes no perfetto_trace.json.gz, but an error.
    """
    if asked is None:
        yield lambda step, state: None
        return
    first, last = span(asked, total)
    folder = pathlib.Path(workdir) / "profile"
    if jax.process_count() > 1:
        folder /= f"process-{jax.process_index()}"
    on: bool | None = None

    def look(step: int, state: Any) -> None:
        nonlocal on
        if on is None and step >= last:
            print(
                f"fmjax: nothing is traced by --profile {asked}: the run goes on from "
                f"step {step}",
                file=sys.stderr,
            )
        on = bool(on)
        if on and step >= last:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            on = False
        elif not on and first <= step < last:
            jax.block_until_ready(state)  # earlier steps are not a part of it
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every Python call slows the host down
            jax.profiler.start_trace(
                folder, create_perfetto_trace=True, profiler_options=options
            )
            on = True

    try:
        yield look
    finally:
        if on:
            jax.profiler.stop_trace()
