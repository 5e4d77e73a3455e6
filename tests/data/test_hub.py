"""The hub's names, and what is asked of its library; the hub itself is a fake here."""

import fnmatch
import logging
import subprocess
import sys
import types

import pytest

from fmjax.data import hub, weights
from fmjax.data.index import Unreachable
from tests.runs import ROOT


class NotThere(Exception):
    pass


@pytest.fixture
def library(monkeypatch, tmp_path):
    """A fake huggingface_hub: `.asked` has the calls, `.fails` is raised by them."""
    fake = types.ModuleType("huggingface_hub")
    fake.errors = types.SimpleNamespace(
        RepositoryNotFoundError=NotThere, RevisionNotFoundError=NotThere
    )
    fake.asked, fake.fails = [], None

    def snapshot_download(repository, **options):
        fake.asked.append((repository, options))
        if fake.fails:
            raise fake.fails
        folder = tmp_path / "snapshots" / (options["revision"] or "0123abc")
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    fake.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return fake


def test_a_revision_is_pinned_and_its_absence_is_told(library, caplog):
    with caplog.at_level(logging.WARNING):
        found = weights.directory("hf:org/some-name.v2@refs/pr/1")
    assert library.asked[0][0] == "org/some-name.v2"
    assert library.asked[0][1]["revision"] == "refs/pr/1"
    assert found.is_dir()
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        weights.directory("hf:org/name")
    assert library.asked[1][1]["revision"] is None
    assert "pin it as hf:org/name@0123abc" in caplog.text


def test_only_weights_settings_and_tokenizers_are_fetched(library):
    hub.fetch("org/name")
    patterns = library.asked[0][1]["allow_patterns"]

    def wanted(file):
        return any(fnmatch.fnmatchcase(file, pattern) for pattern in patterns)

    for file in (
        *("config.json", "generation_config.json", "model.safetensors"),
        *("model-00001-of-00002.safetensors", "model.safetensors.index.json"),
        *("tokenizer.json", "vocab.txt", "merges.txt", "spiece.model"),
        *("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"),
        "config_sentence_transformers.json",
    ):
        assert wanted(file), file
    for file in (
        *("pytorch_model.bin", "modeling_custom.py", "training_args.bin", "x.pkl"),
        *("tf_model.h5", "flax_model.msgpack", "model.safetensors.py", "run.sh"),
        *("sub/config.json", "model.ckpt", "rust_model.ot", "adapter.pt"),
    ):
        assert not wanted(file), file


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (NotThere("404\nmore"), LookupError, "no such repository or revision.*404$"),
        (OSError("no route"), Unreachable, "no route.*copy the repository's files"),
        (RuntimeError("offline mode"), Unreachable, "RuntimeError: offline mode"),
    ],
)
def test_failures_are_told_apart(library, failure, kind, message):
    library.fails = failure
    with pytest.raises(kind, match=f"hf:org/name.*{message}"):
        weights.directory("hf:org/name")


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(Unreachable, match=r"pip install 'fmjax\[hub\]'"):
        hub.fetch("org/name")


@pytest.mark.parametrize(
    "name",
    [*("", "name", "a/b/c", "../x", "a/..", "a/b@"), *("a/b@..", "a b/c", "/a/b")],
)
def test_what_is_no_name_is_refused(name, library):
    with pytest.raises(ValueError, match="names no repository"):
        hub.fetch(name)
    assert not library.asked


def test_a_path_is_never_a_repository(library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(weights.directory("runs/pretrain")) == "runs/pretrain"
    assert not library.asked
    assert "or hf:runs/pretrain for a repo" in weights.missing("runs/pretrain")
    assert "or hf:org/name for a repo" in weights.missing("pretrain")
    (tmp_path / "hf:org").mkdir()
    (tmp_path / "hf:org" / "name").mkdir()
    assert str(weights.directory("hf:org/name")) == "hf:org/name"
    assert not library.asked


SILENT = """
import pathlib, sys, tempfile

def refuse(event, args):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.bind")):
        raise SystemExit(f"a socket: {event} {args}")

sys.addaudithook(refuse)
from fmjax import interop; from fmjax.start import init_from
from fmjax.data import tokenizer, weights

golden = "tests/golden/lm/gpt2"
net, variables = interop.load(golden)
with tempfile.TemporaryDirectory() as folder:
    interop.save(folder, net, variables)
    interop.read_for(net, pathlib.Path(folder))
    for name in ("runs/pretrain", "gpt2", "no/such/folder"):
        assert not weights.directory(name).exists()
        try:
            tokenizer.load(name)
        except FileNotFoundError:
            continue
        raise SystemExit(f"{name} is there")
assert "huggingface_hub" not in sys.modules
print("silent")
"""


def test_reading_and_writing_open_no_socket():
    done = subprocess.run(
        [sys.executable, "-c", SILENT], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "silent", done.stderr
