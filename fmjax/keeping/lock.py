"""One run a workdir: the second is refused, and a dead one is in nobody's way.

The lock is the operating system's (fcntl), on the workdir's file `lock`, and ends with
the process that holds it, however that ends. What is written in the file says who that
is. Several hosts are kept apart where their file system shares locks, as NFS does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from fmjax.config import ConfigError
from fmjax.keeping import provenance


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
    """Within, this run alone has the workdir; process 0 holds it for all.

    Raises ConfigError, on every process, naming the run that has it.
    """
    with contextlib.ExitStack() as stack:
        problem = ""
        if jax.process_index() == 0:
            try:
                stack.enter_context(_locked(workdir))
            except ConfigError as error:
                problem = str(error)
        if jax.process_count() > 1:
            bad = multihost_utils.process_allgather(np.int32(bool(problem)))
            if bad.any() and not problem:
                problem = f"process 0 could not lock {workdir}; it says why"
        if problem:
            raise ConfigError(problem)
        yield


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / "lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ConfigError(
                f"{workdir} is in use by {holder(file.read())}: wait for it, end it, "
                "or take another --workdir"
            ) from None
        file.seek(0)
        if left := file.read():
            print(f"fmjax: {workdir} was left by {holder(left)}", file=sys.stderr)
        file.truncate(0)
        me = {
            "pid": os.getpid(),
            "host": platform.node(),
            "command": provenance.command(),
        }
        file.write(json.dumps(me | {"since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def holder(text: str) -> str:
    """Who holds, or held, a lock, in words."""
    try:
        found = json.loads(text)
        command = " ".join(found["command"])
        where = f"process {found['pid']} on {found['host']}"
        return f"{where} since {found['since']} ({command})"
    except (ValueError, KeyError, TypeError):
        return "another process"
