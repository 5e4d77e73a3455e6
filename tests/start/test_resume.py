"""A program that is run once is compiled quickly, unless the user says how."""

import subprocess
import sys

import pytest

from fmjax.start import resume
from tests.runs import ROOT

FLAG = "--xla_backend_optimization_level"


@pytest.mark.parametrize(
    ("platform", "flags", "options"),
    [
        ("cpu", "", {FLAG[2:]: 1}),
        ("cpu", "--xla_force_host_platform_device_count=8", {FLAG[2:]: 1}),
        ("cpu", f"{FLAG}=0", None),
        ("tpu", "", None),
        ("gpu", "", None),
    ],
)
def test_only_a_cpu_s_programs_and_only_where_the_user_chose_nothing(
    platform, flags, options, monkeypatch
):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert resume.quickly(platform) == options


SAME = """
import sys
import jax, numpy as np
from fmjax import config, train
from fmjax.start import resume
given = (train.train.__kwdefaults__ or {}) | config.load(sys.argv[1])
setup = train.prepare({k: v for k, v in given.items() if k not in train.OWN})
lowered = jax.jit(setup.create).lower(jax.random.key(0))
found = []
for options in (None, resume.quickly("cpu")):
    made = lowered.compile(compiler_options=options)(jax.random.key(0))
    made = made._replace(key=jax.random.key_data(made.key))
    found.append([np.asarray(x).tobytes() for x in jax.tree.leaves(made)])
    assert options or len(found) == 1
assert found[0] == found[1], "other bits"
print(len(found[0]), "arrays")
"""


def test_the_bits_are_those_of_the_usual_level(monkeypatch):
    """In a process of its own: here the compiler is at level 0."""
    monkeypatch.setenv("XLA_FLAGS", "")
    done = subprocess.run(
        [sys.executable, "-c", SAME, "configs/cnn/fashion_mnist.py:tiny"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 20
