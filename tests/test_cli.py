"""Flags, exit codes, and that a verb is its module."""

import argparse
import importlib
import json
import os
import subprocess
import sys

import jax
import pytest

from fmjax import cli, flags, predict, train
from fmjax.config import ConfigError
from tests.runs import ROOT


def command(*words):
    """(exit code, stdout, stderr) of a Python command in the checkout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


class TestSplitOverrides:
    @pytest.mark.parametrize(
        ("words", "rest", "overrides"),
        [
            ([], [], {}),
            (["--config", "a.py:tiny"], ["--config", "a.py:tiny"], {}),
            (["--config=a.py"], ["--config=a.py"], {}),
            (["--config.a.b=1", "x"], ["x"], {"a.b": "1"}),
            (["--config.a", "1", "x"], ["x"], {"a": "1"}),
            (["--config.a=b=c"], [], {"a": "b=c"}),
            (["--config.a="], [], {"a": ""}),
            (["--config.a", "-1"], [], {"a": "-1"}),
            (["--config.a=1", "--config.a=2"], [], {"a": "2"}),
            (["--config.b=1", "--config.a=2"], [], {"b": "1", "a": "2"}),
        ],
    )
    def test_takes_them_out(self, words, rest, overrides):
        found = cli.split_overrides(words)
        assert found == (rest, overrides)
        assert list(found[1]) == list(overrides), "the order of the command line counts"

    def test_leaves_the_given_list_alone(self):
        words = ["--config.a", "1"]
        cli.split_overrides(words)
        assert words == ["--config.a", "1"]

    def test_a_value_is_needed(self):
        with pytest.raises(
            ConfigError, match=r"--config\.a needs a value: --config\.a=\.\.\."
        ):
            cli.split_overrides(["--config.a"])


class TestParse:
    def test_gathers_overrides_where_there_is_a_config(self):
        made = flags.parser("doc")
        made.add_argument("--config")
        given = cli.parse(made, ["--config", "a.py", "--config.x.y=1"])
        assert (given.config, given.overrides) == ("a.py", {"x.y": "1"})
        assert (given.coordinator, given.processes, given.process) == ("", 0, -1)

    def test_a_verb_on_a_run_takes_the_runs_own_config(self):
        with pytest.raises(ConfigError, match="this verb takes a run's own config"):
            predict.main(["--workdir", "x", "--config.optim.lr=1", "text"])

    def test_the_users_compilation_cache_is_left_alone(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        before = jax.config.jax_compilation_cache_dir
        assert before, "tests/conftest.py sets one"
        cli.cache()
        assert jax.config.jax_compilation_cache_dir == before


class TestExitCodes:
    @pytest.mark.parametrize(
        ("result", "code"), [(lambda: 0, 0), (lambda: 75, 75), (lambda: 2, 2)]
    )
    def test_is_mains_status(self, result, code):
        with pytest.raises(SystemExit) as exit_:
            cli.run(result)
        assert exit_.value.code == code

    @pytest.mark.parametrize("kind", [ConfigError, FileNotFoundError])
    def test_a_wrong_setting_is_2_and_one_line(self, kind, capsys):
        def main():
            raise kind("set optim.lr")

        with pytest.raises(SystemExit) as exit_:
            cli.run(main)
        assert exit_.value.code == 2
        assert capsys.readouterr().err == "fmjax: set optim.lr\n"

    def test_a_fault_of_ours_is_1_and_a_traceback(self, capsys):
        def main():
            raise ZeroDivisionError("ours")

        with pytest.raises(SystemExit) as exit_:
            cli.run(main)
        assert exit_.value.code == 1
        assert "Traceback" in capsys.readouterr().err

    def test_one_of_several_processes_ends_at_once(self, monkeypatch):
        """However it has joined them: at exit jax would wait for the others."""
        ended = []
        monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(cli.os, "_exit", ended.append)

        def main():
            raise ConfigError("set optim.lr")

        with pytest.raises(SystemExit):
            cli.run(main)
        assert ended == [2]

    def test_a_run_needs_a_workdir(self, capsys):
        with pytest.raises(SystemExit) as exit_:
            train.main(["--config", "configs/cnn/mnist.py:tiny"])
        assert exit_.value.code == 2
        assert "--workdir is needed" in capsys.readouterr().err


HELP = """
import contextlib, io, json, runpy, sys
said = {}
for verb in sys.argv[1:]:
    sys.argv = [verb, "-h"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(f"fmjax.{verb}", run_name="__main__", alter_sys=True)
            code = None
        except SystemExit as ended:
            code = ended.code
    said[verb] = code, out.getvalue(), err.getvalue()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def helped():
    """(exit code, stdout, stderr) of `python -m fmjax.VERB -h` for every verb."""
    code, out, err = command(
        "-W", "ignore::RuntimeWarning:runpy", "-c", HELP, *cli.VERBS
    )
    assert code == 0, err
    return json.loads(out)


class TestVerbs:
    @pytest.mark.parametrize("flag", ["-h", "--help"])
    def test_help_lists_them(self, flag, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["fmjax", flag])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert exit_.value.code == 0
        said = capsys.readouterr().out
        assert all(verb in said and what in said for verb, what in cli.VERBS.items())

    def test_the_package_is_the_console_script(self):
        code, out, err = command("-m", "fmjax", "--help")
        assert (code, err) == (0, "")
        assert all(what in out for what in cli.VERBS.values())
        code, out, err = command("-m", "fmjax", "trian")
        assert (code, out) == (2, "")
        assert "no verb 'trian'; did you mean 'train'?" in err

    @pytest.mark.parametrize("verb", cli.VERBS)
    def test_every_flag_says_what_it_does(self, verb, monkeypatch):
        made = []
        monkeypatch.setattr(
            argparse.ArgumentParser,
            "parse_args",
            lambda self, *_: made.append(self) or sys.exit(0),
        )
        with pytest.raises(SystemExit):
            importlib.import_module(f"fmjax.{verb}").main([])
        (parser,) = made
        assert [a.dest for a in parser._actions if not a.help] == []

    @pytest.mark.parametrize("words", [[], ["trian"], ["optim"]])
    def test_an_unknown_verb_is_2(self, words, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["fmjax", *words])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert exit_.value.code == 2
        assert "usage: fmjax VERB" in "".join(capsys.readouterr())

    @pytest.mark.parametrize("verb", cli.VERBS)
    def test_each_is_a_module_with_the_same_flags(
        self, verb, helped, monkeypatch, capsys
    ):
        """`fmjax VERB -h` and `python -m fmjax.VERB -h` but for the program's name."""
        monkeypatch.setattr(sys, "argv", ["fmjax", verb, "-h"])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert exit_.value.code == 0
        out = capsys.readouterr().out
        code, other, err = helped[verb]
        assert (code, err) == (0, "")
        options = [text[text.index("options:") :] for text in (out, other)]
        assert options[0] == options[1]
        where = {"sweep": "--study", "compile": "--topology"}
        assert where.get(verb, "workdir") in out

    @pytest.mark.parametrize(
        "words",
        [
            ("evaluate", "--workdir", "no/run"),
            ("predict", "--workdir", "no/run", "text"),
            ("report", "--workdir", "no/run"),
            ("train", "--config", "no.py", "--workdir", "x"),
        ],
    )
    def test_a_run_that_is_not_there_is_2(self, words, monkeypatch, capsys):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["fmjax", *words])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert exit_.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("fmjax: ")
        assert words[2] in said
        assert len(said.splitlines()) == 1
