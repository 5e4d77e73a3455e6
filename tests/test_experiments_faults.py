"""experiments/faults in short: the trials do what they say, a few times each."""

import subprocess
import sys

import pytest

from experiments.faults import hurt
from tests.runs import ROOT


def test_flips_are_told_apart(tmp_path):
    hurt.sound(str(tmp_path / "sound"))
    refused, harmless, wrong = hurt.flipped(str(tmp_path), 6, 0)
    assert refused + harmless == 6
    assert refused > 0
    assert wrong == 0


def test_every_step_damaged_is_refused(tmp_path):
    hurt.sound(str(tmp_path / "sound"))
    assert hurt.refuses(str(tmp_path), 2, 0.5) == 2


def test_a_verdict_can_be_bad(tmp_path):
    """A sound step under another step's state would be counted as lost."""
    hurt.sound(str(tmp_path))
    path = tmp_path / "checkpoints/2/digests.json"
    assert hurt.verdict(tmp_path, path) == 1
    path.unlink()
    assert hurt.verdict(tmp_path, path.with_name("something else")) == 2


@pytest.mark.parametrize("trials", [0.02, pytest.param(0.1, marks=pytest.mark.slow)])
def test_kills_files_disks_and_locks(tmp_path, trials):
    flags = ["--trials", str(trials), "--workdir", str(tmp_path), "--only"]
    flags += ["kills", "files", "disk", "locks"]
    command = [sys.executable, "-m", "experiments.faults.run", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| 0 |") == 4, "nothing was lost"
