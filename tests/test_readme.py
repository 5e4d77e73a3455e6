"""The READMEs: equal in both languages, and true of the code and of the results."""

import importlib
import json
import pathlib
import re

import pytest

from fmjax import cli, config
from tests import runs

ENGLISH = (runs.ROOT / "README.md").read_text("utf-8")
CHINESE = (runs.ROOT / "README.zh.md").read_text("utf-8")


def code(text: str) -> list[str]:
    """Fenced commands without their comments."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    lines = [
        re.sub(r"\s*#.*", "", line) for block in blocks for line in block.split("\n")
    ]
    return [line.strip() for line in lines if line.strip()]


def numbers(text: str) -> list[str]:
    tables = [line for line in text.split("\n") if line.startswith("|")]
    return [re.findall(r"[\d.,]*\d", re.sub(r"`[^`]*`", "", line)) for line in tables]


def test_both_languages_have_the_same_commands_numbers_and_links():
    assert code(ENGLISH) == code(CHINESE)
    assert numbers(ENGLISH) == numbers(CHINESE)
    links = [re.findall(r"\]\(([^)]+)\)", text) for text in (ENGLISH, CHINESE)]
    assert sorted(links[0])[:-1] == sorted(links[1])[1:] or set(links[0]) ^ set(
        links[1]
    ) == {"README.zh.md", "README.md"}
    headings = [len(re.findall(r"^#+ ", text, re.M)) for text in (ENGLISH, CHINESE)]
    assert headings[0] == headings[1]


@pytest.mark.parametrize("path", ["README.md", "README.zh.md", "CONTRIBUTING.md"])
def test_links_lead_to_files(path):
    found = re.findall(r"\]\(([^)#]+)\)", (runs.ROOT / path).read_text("utf-8"))
    for link in found:
        if not link.startswith("http"):
            assert (runs.ROOT / link).exists(), link


def test_the_tables_name_everything_there_is():
    for verb in cli.VERBS:
        assert f"| `{verb} " in ENGLISH
    for kind in ("model", "objective", "data", "inputs", "metrics", "transforms"):
        package = config.PARTS[kind][0].replace(".", "/")
        for file in (runs.ROOT / package).glob("*.py"):
            shared = kind == "metrics" and file.stem in ("bootstrap", "calibration")
            if file.stem != "__init__" and not shared:
                assert f"`{file.stem}`" in ENGLISH, file
    for file in (runs.ROOT / "fmjax/models").glob("*.py"):
        module = importlib.import_module(f"fmjax.models.{file.stem}")
        for size in getattr(module, "SIZES", ()):
            assert re.search(rf"[ (]{re.escape(size)}[,)]", ENGLISH), size
    for name in runs.CONFIGS:
        assert f"({name})" in ENGLISH


def test_every_test_that_the_promises_name_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", ENGLISH)
    assert len(named) >= 5
    for file, test in named:
        assert f"def {test}(" in (runs.ROOT / file).read_text("utf-8")


def test_module_commands_exist():
    for module in re.findall(r"python -m ([\w.]+)", ENGLISH):
        if module != "pytest" and "VERB" not in module:
            path = runs.ROOT / (module.replace(".", "/") + ".py")
            assert path.exists(), module


@pytest.mark.parametrize("name", ["sentiment", "fashion_mnist"])
def test_results_are_those_that_were_recorded(name):
    folder = runs.ROOT / "experiments" / name
    lines = (folder / "results.jsonl").read_text("utf-8").splitlines()
    text = (folder / "README.md").read_text("utf-8")
    for line in map(json.loads, lines):
        if "accuracy" in line:
            shown = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**line["accuracy"])
            assert shown in text, line["model"]


def test_no_placeholder_is_left():
    for path in pathlib.Path(runs.ROOT).glob("**/*.md"):
        if ".venv" not in path.parts:
            assert not re.search(r"@[A-Z_]{3,}@", path.read_text("utf-8")), path
