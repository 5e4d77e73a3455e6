"""Freed memory stays with the process, unless the user settled it otherwise."""

import os
import subprocess
import sys

import pytest

from fmjax import memory

STEP = """
import resource, sys
from fmjax import memory
told = memory.keep() if sys.argv[1] == "keep" else None
import jax, jax.numpy as jnp
# Its intermediate is an array of 64 MB.
step = jax.jit(lambda x: jnp.sin(x) @ x[0])
x = jnp.ones((1 << 12, 1 << 12))
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
counts = []
for _ in range(60):
    before = faults()
    step(x).block_until_ready()
    counts.append(faults() - before)
# The usual step's: what else was allocated may lie where a step's array was, and then
# it has to have new room; in the first steps often, later now and then.
print(told, sorted(counts[20:])[20])
"""


def settled(environment):
    own = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_", "JAX_PLATFORMS")
    return {k: v for k, v in environment.items() if not k.startswith(own)}


def faults(way, **more):
    environment = settled(os.environ) | {"JAX_PLATFORMS": "cpu"} | more
    words = [sys.executable, "-c", STEP, way]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told, count = done.stdout.split()
    return told, int(count)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc alone is told")
def test_steps_have_their_memory_from_those_before():
    told, kept = faults("keep")
    assert told == "True"
    assert kept < 500
    assert faults("leave")[1] > 10_000  # a page of 4 KB each


@pytest.mark.parametrize(
    "name", ["GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_ARENA_MAX", "JAX_PLATFORMS"]
)
def test_what_the_user_settled_stays(name, monkeypatch):
    for one in set(os.environ) - set(settled(os.environ)):
        monkeypatch.delenv(one)
    monkeypatch.setattr(memory, "KEEP", {})  # nothing is told to this process
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert memory.keep() == (sys.platform == "linux")
    monkeypatch.setenv(name, "tpu,cpu" if name == "JAX_PLATFORMS" else "1")
    assert not memory.keep()


def test_an_accelerators_plugin_is_seen_without_starting_jax(monkeypatch):
    for one in set(os.environ) - set(settled(os.environ)):
        monkeypatch.delenv(one)
    monkeypatch.setattr(memory, "KEEP", {})
    monkeypatch.setattr(memory.importlib.metadata, "entry_points", lambda group: ["x"])
    assert not memory.keep()
