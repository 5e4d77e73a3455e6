"""Flags, verbs and exit codes."""

import subprocess
import sys

import pytest

from fmjax import cli, config
from tests import runs


def test_overrides_are_taken_out_of_the_arguments():
    words = ["--config", "f.py", "--config.a.b=1=2", "--config.c", "x", "--workdir=w"]
    rest, overrides = cli.split_overrides(words)
    assert rest == ["--config", "f.py", "--workdir=w"]
    assert overrides == {"a.b": "1=2", "c": "x"}
    with pytest.raises(config.ConfigError, match="needs a value"):
        cli.split_overrides(["--config.a"])


def test_verbs_without_a_config_refuse_overrides():
    with pytest.raises(config.ConfigError, match=r"no --config\.\* flag"):
        cli.parse(cli.parser(None), ["--config.a=1"])


@pytest.mark.parametrize(
    ("error", "code"), [(config.ConfigError("x"), 2), (KeyError("x"), 1), (None, 75)]
)
def test_exit_codes(error, code, capsys):
    def main():
        if error:
            raise error
        return 75

    with pytest.raises(SystemExit) as left:
        cli.run(main)
    assert left.value.code == code
    assert ("Traceback" in capsys.readouterr().err) == (code == 1)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_verb_has_help_both_ways(verb):
    for argv in (
        ["-m", f"fmjax.{verb}"],
        ["-c", "import fmjax.cli as c; c.main()", verb],
    ):
        done = subprocess.run(
            [sys.executable, *argv, "--help"],
            capture_output=True,
            text=True,
            cwd=runs.ROOT,
        )
        assert done.returncode == 0, done.stderr
        assert "--workdir" in done.stdout


def test_an_unknown_verb_lists_the_verbs(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fmjax", "trian"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in cli.VERBS)
