"""Arrows point one way, and nothing unsafe is in the code."""

import ast
import pathlib
import subprocess
import sys

import pytest

from tests import runs

PACKAGE = runs.ROOT / "fmjax"
FILES = [
    p
    for d in ("fmjax", "configs", "experiments")
    for p in (runs.ROOT / d).rglob("*.py")
]
CORE = ("train", "step", "optim", "parallel", "checkpoint", "evaluate", "report")
# room -> the rooms of fmjax that it may import
MAY_IMPORT = {
    "layers": {"layers"},
    "models": {"models", "layers"},
    "objectives": set(),
    "data": {"data"},
    "metrics": {"metrics"},
    "interop": {"interop", "models"},
}


def imports(path: pathlib.Path) -> set[str]:
    """Every module that a file names in an import, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_they_may(room):
    files = list((PACKAGE / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            top, *rest = name.split(".")
            if top == "fmjax":
                assert rest[0] in MAY_IMPORT[room], f"{path} imports {name}"


def test_only_checkpoint_imports_orbax():
    users = {p.name for p in FILES if any(n.startswith("orbax") for n in imports(p))}
    assert users == {"checkpoint.py"}


def test_the_package_knows_neither_configs_nor_experiments():
    for path in FILES:
        tops = {name.split(".")[0] for name in imports(path)}
        if PACKAGE in path.parents:
            assert not tops & {"configs", "experiments", "tests"}, path
        if runs.ROOT / "configs" in path.parents:
            assert tops <= {"configs", "fmjax", "ml_collections"}, path
        assert not tops & {"tensorflow", "clu", "chex", "pickle", "dill"}, path


def test_models_come_without_orbax_tfds_and_torch():
    heavy = "('orbax', 'tensorflow_datasets', 'torch', 'tensorflow', 'grain')"
    program = (
        "import sys, fmjax.models.bert, fmjax.models.cnn, fmjax.objectives.classify;"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    argv = [sys.executable, "-c", program]
    done = subprocess.run(
        argv, capture_output=True, text=True, cwd=runs.ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


def unsafe(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in (
            "eval",
            "exec",
            "pickle.loads",
            "pickle.load",
            "yaml.load",
            "os.system",
        ):
            found.append(name)
        if name == "torch.load":
            found.append(name)
        for keyword in node.keywords:
            if keyword.arg in ("shell", "allow_pickle"):
                value = ast.unparse(keyword.value)
                if value != "False":
                    found.append(f"{name}({keyword.arg}={value})")
    return found


def test_the_search_for_unsafe_calls_finds_them():
    program = "eval('1'); np.load(f, allow_pickle=True); run(x, shell=True)"
    assert len(unsafe(ast.parse(program))) == 3


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(runs.ROOT)))
def test_no_unsafe_calls_and_no_undocumented_names(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert not unsafe(tree)
    if PACKAGE not in path.parents:
        return
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
            small = node.name == "main"
            assert ast.get_docstring(node) or small, f"{path}: {node.name}"


def code_lines(path: pathlib.Path) -> int:
    """Lines that are neither blank, nor comment, nor docstring."""
    text = path.read_text("utf-8")
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            first = node.body[0]
            if ast.get_docstring(node):
                documented |= set(range(first.lineno, (first.end_lineno or 0) + 1))
    return sum(
        bool(line.strip()) and line.strip()[0] != "#" and number not in documented
        for number, line in enumerate(text.splitlines(), 1)
    )


def test_files_fit_in_the_head_and_the_core_in_one_sitting():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 450, path
    core = (*CORE, "config", "cli")
    assert sum(code_lines(PACKAGE / f"{name}.py") for name in core) <= 1500
