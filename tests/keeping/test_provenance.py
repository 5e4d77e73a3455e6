"""Who made a run is recorded, and none of the environment's secrets with it."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from fmjax.keeping import provenance

SECRET = "correct-horse-battery-staple"
NAMES = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "DB_PASSWORD", "MY_PAT")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a login in its remote's address and an uncommitted change."""

    def git(*words):
        plain = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=0")
        command = ["git", *plain, *words]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "code.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-m", "first")
    git("remote", "add", "origin", f"https://me:{SECRET}@example.com/a.git")
    (tmp_path / "code.py").write_text("a = 2\n")
    (tmp_path / "other.py").write_text(f"token = '{SECRET}'\n")
    monkeypatch.setattr(provenance, "_HERE", tmp_path)
    return tmp_path


def text_of(folder):
    return "".join(p.read_text() for p in folder.rglob("*") if p.is_file())


def test_says_who_made_a_run():
    found = json.loads(json.dumps(provenance.record(), allow_nan=False))
    assert found["packages"]["jax"] == jax.__version__
    assert found["devices"] == [8, "cpu"]
    assert found["processes"] == 1
    assert found["command"] == sys.argv
    assert found["commit"] is None or len(found["commit"]) == 40
    assert "xla_force_host_platform_device_count=8" in found["flags"]["XLA_FLAGS"]


def test_uncommitted_changes_are_kept(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    found = provenance.record(folder)
    assert len(found["commit"]) == 40
    assert found["uncommitted"]
    changes = found["changes"]
    assert changes["untracked"] == ["other.py"]
    assert not changes["cut"]
    patch = (folder / changes["file"]).read_text()
    assert "-a = 1\n+a = 2" in patch
    # The same changes again are the same file; others are another.
    assert provenance.record(folder)["changes"] == changes
    (repository / "code.py").write_text("a = 3\n")
    assert provenance.record(folder)["changes"]["sha256"] != changes["sha256"]
    assert len(list((folder / "provenance").iterdir())) == 2
    assert SECRET not in text_of(folder) + json.dumps(found)


def test_large_changes_are_cut(repository, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("run")
    (repository / "code.py").write_text("b = 1\n" * 500_000)
    changes = provenance.record(folder)["changes"]
    assert changes["cut"]
    assert changes["bytes"] <= provenance.DIFF_LIMIT + 100
    assert (folder / changes["file"]).stat().st_size <= provenance.DIFF_LIMIT + 100


def test_without_git_it_says_less(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_HERE", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.record(tmp_path)["commit"] is None
    monkeypatch.setenv("PATH", str(tmp_path))
    found = provenance.record(tmp_path)
    assert (found["commit"], found["uncommitted"], found["changes"]) == (
        None,
        False,
        None,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_secrets_of_the_environment_are_left_out(
    name, repository, tmp_path_factory, monkeypatch
):
    folder = tmp_path_factory.mktemp("run")
    monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("JAX_NOTE", f"x{SECRET}")
    monkeypatch.setattr(
        sys, "argv", ["train", SECRET, f"--url=https://u:{SECRET}@a.b/c", "--x", "y"]
    )
    (repository / "code.py").write_text(f"key = '{SECRET}'\n")
    text = json.dumps(provenance.record(folder))
    assert SECRET not in text + text_of(folder)
    assert f"<{name}>" in text
    assert f"+key = '<{name}>'" in text_of(folder)
    assert os.environ["PATH"] not in text


def test_flags_that_hold_secrets_lose_their_values(monkeypatch):
    words = ["--api_key=abc", "--hf-token", "def", "--config.data.password=ghi"]
    words += ["--config.tokenizer.name=bpe", "--token", "--steps", "3"]
    monkeypatch.setattr(sys, "argv", ["train", *words])
    assert provenance.command() == [
        *("train", "--api_key=<removed>", "--hf-token", "<removed>"),
        *("--config.data.password=<removed>", "--config.tokenizer.name=bpe"),
        *("--token", "--steps", "3"),
    ]


def test_what_is_no_secret_stays(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "short")
    monkeypatch.setenv("MONKEY", "a-long-value")
    text = "a short a-long-value https://example.com/a@b"
    assert provenance.redact(text) == text


def test_the_fingerprint_follows_the_rows():
    rows = [{"image": np.full((2, 2), i, np.uint8), "label": i} for i in range(200)]
    first = provenance.fingerprint(rows)
    assert first == provenance.fingerprint([dict(reversed(x.items())) for x in rows])
    assert (first["rows"], first["sample"]) == (200, provenance.SAMPLE)
    for changed in (
        rows[:-1],
        [rows[0] | {"label": 1}, *rows[1:]],
        [*rows[:-1], rows[-1] | {"image": np.zeros((2, 2), np.uint8)}],
        [x | {"image": x["image"].astype(np.int8)} for x in rows],
    ):
        assert provenance.fingerprint(changed)["sha256"] != first["sha256"]
    assert provenance.fingerprint(rows[:3])["sample"] == 3
