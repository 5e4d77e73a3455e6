"""Pre-training that goes on in another domain, with its vocabulary or a new one."""

import json

import pytest

from fmjax import config, evaluate
from tests import runs

NAME = "configs/bert/pretrain.py"
DOMAIN = {"name": "synthetic_text", "size": 64, "classes": 4, "seed": 1}
ONE = {"devices": 1}


@pytest.fixture(scope="module")
def general(tmp_path_factory):
    folder = tmp_path_factory.mktemp("general")
    runs.run(folder, runs.tiny(NAME, steps=20, optim__lr=3e-3), parallel=ONE)
    return folder


def adapted(general, **changes):
    """The tiny settings with what the variant 'adapt' changes."""
    settings = runs.tiny(NAME, evaluate__every="100%", **changes)
    adapt = config.load(f"{runs.ROOT / NAME}:adapt")
    settings["data"]["corpus"] = DOMAIN
    settings["tokenizer"] = adapt["tokenizer"] | {
        "path": str(general / "tokenizer.json")
    }
    settings["init_from"] = adapt["init_from"] | {"path": str(general)}
    return settings


def test_it_begins_where_the_other_ended_and_learns_the_domain(general, tmp_path):
    flags = {f"corpus.{key}": str(DOMAIN[key]) for key in ("classes", "seed")}
    before = evaluate.evaluate(general, splits=("validation",), data=flags)
    still = adapted(general, steps=1)
    still["optim"] = dict(name="sgd", lr=0.0)
    runs.run(tmp_path / "still", still, parallel=ONE)
    (loss,) = runs.losses(tmp_path / "still", "validation/loss")
    assert loss == pytest.approx(before["validation"]["loss"], rel=1e-6)
    runs.run(tmp_path / "on", adapted(general, steps=40, optim__lr=3e-3), parallel=ONE)
    assert runs.losses(tmp_path / "on", "validation/loss")[-1] < loss - 0.1


def test_a_new_vocabulary_keeps_the_vectors_of_shared_tokens(general, tmp_path):
    settings = adapted(general, steps=2)
    settings["tokenizer"] |= {"path": None, "vocab_size": 160}
    settings["init_from"]["vocabulary"] = "embed/tokens|mlm/bias"
    runs.run(tmp_path, settings, parallel=ONE)
    report = json.loads((tmp_path / "init_from.json").read_text())
    assert set(report["resized"]) == {"embed/tokens/embedding", "mlm/bias"}
    (how,) = set(report["resized"].values())
    shared, rows = int(how.split()[0]), int(how.split()[2])
    old, new = (
        set(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
        for folder in (general, tmp_path)
    )
    assert (shared, rows) == (len(old & new), len(new))
    assert 30 < shared < rows
    assert report["fresh"] == report["unused"] == []
