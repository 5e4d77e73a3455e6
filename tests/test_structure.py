"""Arrows point one way, nothing unsafe is called, files are short and documented."""

import ast
import functools
import os
import subprocess
import sys

import pytest

from tests.runs import ROOT

LIMIT, CORE_LIMIT = 450, 1500  # lines; the core's are those of code
CORE = (
    "train", "step", "optim", "parallel", "checkpoint", "evaluate", "report", "config",
    "cli",
)  # fmt: skip


def files(*rooms):
    found = [p for room in rooms for p in (ROOT / room).rglob("*.py")]
    assert found, f"no Python files under {rooms}"
    return sorted(found)


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(path):
    """Every module that a file imports, anywhere in it; 'a.b' for `from a import b`."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def under(module, *rooms):
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def leads_to(path, *rooms):
    return sorted(m for m in imports(path) if under(m, *rooms))


def own(path):
    return sorted(
        m for m in imports(path) if under(m, "fmjax", "configs", "experiments")
    )


MACHINERY = tuple(
    f"fmjax.{name}"
    for name in (
        *CORE,
        *("costs", "keeping", "search", "start"),
        *("bits", "compile", "convert", "elsewhere", "fsck", "generate", "predict"),
        *("reproduce", "sharding", "sweep", "unfreeze", "watching", "workdir"),
        *("copies", "flash", "reporting.page"),
    )
)


class TestArrows:
    @pytest.mark.parametrize("path", files("fmjax"), ids=name_of)
    def test_the_library_knows_no_config_and_no_experiment(self, path):
        assert leads_to(path, "configs", "experiments", "tests") == []

    @pytest.mark.parametrize("path", files("fmjax/models"), ids=name_of)
    def test_models_know_layers_alone(self, path):
        assert [m for m in own(path) if not under(m, "fmjax.layers")] == []

    @pytest.mark.parametrize("path", files("fmjax/layers"), ids=name_of)
    def test_layers_know_layers_alone(self, path):
        assert [m for m in own(path) if not under(m, "fmjax.layers")] == []

    @pytest.mark.parametrize("path", files("fmjax/objectives"), ids=name_of)
    def test_objectives_know_nothing_of_the_house(self, path):
        assert [m for m in own(path) if not under(m, "fmjax.objectives")] == []

    @pytest.mark.parametrize("path", files("fmjax/data"), ids=name_of)
    def test_data_know_data_alone(self, path):
        assert [m for m in own(path) if not under(m, "fmjax.data")] == []

    @pytest.mark.parametrize("path", files("fmjax/metrics"), ids=name_of)
    def test_metrics_know_metrics_alone(self, path):
        assert [m for m in own(path) if not under(m, "fmjax.metrics")] == []

    @pytest.mark.parametrize("path", files("fmjax/generation"), ids=name_of)
    def test_generation_knows_itself_alone(self, path):
        assert [m for m in own(path) if not under(m, "fmjax.generation")] == []

    @pytest.mark.parametrize("path", files("fmjax/interop"), ids=name_of)
    def test_interop_knows_no_machinery(self, path):
        assert leads_to(path, *MACHINERY, "fmjax.objectives") == []

    @pytest.mark.parametrize(
        "path",
        files("fmjax/models", "fmjax/layers", "fmjax/objectives", "fmjax/data"),
        ids=name_of,
    )
    def test_devices_are_the_business_of_parallel(self, path):
        assert (
            leads_to(path, "jax.sharding", "jax.distributed", "jax.experimental") == []
        )
        named = {
            ast.unparse(node)
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Attribute)
        }
        devices = (
            "devices",
            "device_count",
            "device_put",
            "process_index",
            "pmap",
            "set_mesh",
        )
        assert named & {f"jax.{name}" for name in (*devices, "process_count")} == set()

    @pytest.mark.parametrize("path", files("configs"), ids=name_of)
    def test_configs_know_fmjax_and_ml_collections(self, path):
        known = ("fmjax", "configs", "ml_collections", "__future__")
        assert [m for m in imports(path) if not under(m, *known)] == []

    def test_only_checkpoint_knows_orbax(self):
        rooms = files("fmjax", "configs", "experiments")
        users = [name_of(path) for path in rooms if leads_to(path, "orbax")]
        assert users == ["fmjax.checkpoint"]

    def test_the_check_sees_an_arrow(self):
        """The tests above look at something: these arrows are there and found."""
        assert leads_to(ROOT / "fmjax/train.py", "fmjax.parallel")
        assert leads_to(ROOT / "fmjax/models/bert.py", "fmjax.layers")
        assert leads_to(ROOT / "fmjax/start/init_from.py", "fmjax.interop"), (
            "inside a function"
        )

    def test_importing_models_is_light(self):
        names = [name_of(path) for path in files("fmjax/models")]
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import sys, {', '.join(names)}\nprint(*sys.modules)",
            ],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = done.stdout.split()
        assert set(names) <= set(loaded)
        heavy = ("tensorflow_datasets", "tensorflow", "torch", "grain", "tokenizers")
        # Flax looks for orbax by itself; what saves and restores is not among it.
        assert [m for m in loaded if under(m, *heavy, "orbax")] == []
        rooms = ("fmjax.models", "fmjax.layers")
        ours = [m for m in loaded if under(m, "fmjax") and not under(m, *rooms)]
        assert ours == ["fmjax"]


BANNED_MODULES = (
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "jsonpickle",
    "marshal", "shelve", "imp", "code", "pty", "tensorflow", "clu", "chex",
)  # fmt: skip
BANNED_NAMES = (  # called, or merely named
    "eval", "exec", "__import__", "builtins.eval", "builtins.exec", "torch.load",
    "builtins.__import__", "torch.jit.load", "torch.hub.load", "yaml.load",
    "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen",
    "subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp",
    "asyncio.create_subprocess_shell",
)  # fmt: skip
BANNED_METHODS = ("read_pickle", "to_pickle", "extractall", "unpack_archive")
BANNED_KEYWORDS = ("shell", "allow_pickle", "trust_remote_code")
# What reaches out of the process, and the only files that do.
OUTSIDE = {
    "subprocess": {
        "fmjax.data.fetch", "fmjax.data.index", "fmjax.keeping.provenance",
        "fmjax.sweep",
    },
    "runpy": {"fmjax.search.ranges"},  # a config, which is a program
    "urllib.request": {"fmjax.data.index"},
    "ssl": {"fmjax.data.index"},
    "ctypes": {"fmjax.memory"},  # the C library, which is told to keep freed memory
    "huggingface_hub": {"fmjax.data.hub"},
    **{
        name: frozenset()
        for name in ("socket", "http", "requests", "httpx", "aiohttp")
    },
}  # fmt: skip
# The only files that import a module whose name is in a variable: each sees to it that
# the name, which a file or a config may have given, is one of the house's own.
IMPORTERS = {
    "fmjax.cli", "fmjax.config", "fmjax.data.source", "fmjax.reporting.figures",
    "fmjax.interop", "fmjax.data.inputs.mixture", "fmjax.models.simclr",
    "fmjax.objectives.multitask",
    "fmjax.reporting.trackers",
}  # fmt: skip


def unsafe(tree):
    """What must not be in our code, as 'line: what'."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            found += [(node, name) for name in names if under(name, *BANNED_MODULES)]
            found += [(node, name) for name in names if name in BANNED_NAMES]
        elif isinstance(node, ast.Name | ast.Attribute):
            name = ast.unparse(node)
            if name in BANNED_NAMES or name.rpartition(".")[2] in BANNED_METHODS:
                found.append((node, name))
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("compile", "builtins.compile"):
                found.append((node, called))
            if called in ("np.load", "numpy.load") and len(node.args) > 2:
                found.append((node, "allow_pickle by its place"))
            for keyword in node.keywords:
                off = (
                    isinstance(keyword.value, ast.Constant) and not keyword.value.value
                )
                if keyword.arg in BANNED_KEYWORDS and not off:
                    found.append((node, ast.unparse(keyword)))
    return [f"{node.lineno}: {what}" for node, what in found]


def imports_by_variable(tree):
    """Are there calls that import what is not written there?"""
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2]
        in ("import_module", "spec_from_file_location", "exec_module")
    ]
    return any(not isinstance(node.args[0], ast.Constant) for node in calls)


class TestSafety:
    @pytest.mark.parametrize(
        "path", files("fmjax", "configs", "experiments"), ids=name_of
    )
    def test_nothing_unsafe_is_called(self, path):
        assert unsafe(tree_of(path)) == []

    @pytest.mark.parametrize("path", files("fmjax", "configs"), ids=name_of)
    def test_little_reaches_out_of_the_process(self, path):
        allowed = {name for name, users in OUTSIDE.items() if name_of(path) in users}
        assert set(leads_to(path, *OUTSIDE)) <= allowed
        known = name_of(path) in IMPORTERS
        assert imports_by_variable(tree_of(path)) == known, "see IMPORTERS"

    @pytest.mark.parametrize(
        "code",
        [
            "import pickle",
            "from pickle import loads",
            "import joblib.parallel",
            "eval('1')",
            "def f():\n    exec(text)",
            "yaml.load(text)",
            "from yaml import load",
            "torch.load(path, weights_only=True)",
            "np.load(path, allow_pickle=True)",
            "np.load(path, allow_pickle=flag)",
            "subprocess.run('ls', shell=True)",
            "os.system('ls')",
            "from os import system",
            "f = eval",
            "map(exec, texts)",
            "__import__(name)",
            "compile(text, 'a', 'exec')",
            "np.load(path, None, True)",
            "torch.jit.load(path)",
            "pd.read_pickle(path)",
            "archive.extractall(folder)",
            "AutoModel.from_pretrained(name, trust_remote_code=True)",
            "subprocess.getoutput('ls')",
        ],
    )
    def test_the_check_sees(self, code):
        assert len(unsafe(ast.parse(code))) == 1

    @pytest.mark.parametrize(
        "code",
        [
            "np.load(path, allow_pickle=False)",
            "subprocess.run(['ls'], shell=False)",
            "jax.jit(f).lower(x).compile()",
            "re.compile('a')",
            "spec.loader.exec_module(module)",
            "ast.literal_eval(text)",
            "np.load(path, 'r')",
            "net.compile(x)",
        ],
    )
    def test_the_check_lets_pass(self, code):
        assert unsafe(ast.parse(code)) == []


def code_lines(path):
    """Lines that are neither blank, nor a comment, nor in a docstring."""
    tree, text, words = tree_of(path), path.read_text("utf-8"), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                words |= set(range(first.lineno, first.end_lineno + 1))
    return sum(
        bool(line.strip()) and line.strip()[0] != "#" and number not in words
        for number, line in enumerate(text.splitlines(), 1)
    )


class TestSize:
    @pytest.mark.parametrize("path", files("fmjax"), ids=name_of)
    def test_a_file_fits_in_the_head(self, path):
        assert len(path.read_text("utf-8").splitlines()) <= LIMIT

    def test_the_core_reads_in_one_sitting(self):
        lines = {name: code_lines(ROOT / f"fmjax/{name}.py") for name in CORE}
        assert sum(lines.values()) <= CORE_LIMIT, lines

    def test_lines_of_code_are_neither_blank_nor_words(self, tmp_path):
        path = tmp_path / "some.py"
        path.write_text(
            '"""What\n\nit is."""\n\n# why\nx = """a\nb"""  # a text, no docstring\n'
            'def f():\n    """What."""\n    return x\n'
        )
        assert code_lines(path) == 4


class TestDocstrings:
    @pytest.mark.parametrize("path", files("fmjax"), ids=name_of)
    def test_every_file_and_public_name_says_what_it_is(self, path):
        tree = tree_of(path)
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        silent = [
            f"{node.lineno}: {node.name}"
            for node in tree.body
            if isinstance(node, kinds)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
            # A verb's help is its module's docstring.
            and not (node.name == "main" and ast.get_docstring(tree))
        ]
        assert silent == []
        assert ast.get_docstring(tree), "the file has no docstring"
