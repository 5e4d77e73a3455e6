"""A run evaluated on other data than its own, by the names of the classes."""

import csv
import json

import numpy as np
import pytest

from fmjax import config, evaluate
from fmjax.data.source import Source
from fmjax.elsewhere import renumbered
from fmjax.workdir import open_run
from tests import runs

ONE = {"devices": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on synthetic texts, whose classes are bad and good."""
    folder = tmp_path_factory.mktemp("trained")
    runs.run(
        folder,
        runs.tiny("configs/bert/sentiment.py", steps=30, optim__lr=3e-3),
        parallel=ONE,
    )
    return folder


@pytest.fixture
def written(trained, tmp_path):
    """write(names) -> CSV files of the run's own test rows, labelled by `names`."""
    rows = open_run(trained).parts.data("test").rows

    def write(names):
        for split in ("train", "test"):  # the classes are those of the training rows
            with (tmp_path / f"{split}.csv").open("w", newline="") as file:
                out = csv.writer(file)
                out.writerow(("text", "label"))
                for i in range(len(rows)):
                    out.writerow((rows[i]["text"], names[rows[i]["label"]]))
        return tmp_path / "{split}.csv"

    return write


def flags(path):
    return {"name": "csv", "path": str(path)}


@pytest.mark.parametrize("names", [("bad", "good"), ("yes", "no")])
def test_labels_go_by_name_whatever_their_numbers(trained, written, names):
    # In the alphabet's order 'no' comes first: the numbers are the other way round.
    want = evaluate.evaluate(trained)["test"]
    same = {} if names[0] == "bad" else {"yes": "bad", "no": "good"}
    path = written(names)
    got = evaluate.evaluate(trained, data=flags(path), same=same)["test"]
    for key in ("count", "loss", "accuracy"):
        assert got[key] == pytest.approx(want[key], rel=1e-6), key
    if same:
        turned = {"yes": "good", "no": "bad"}
        got = evaluate.evaluate(trained, data=flags(path), same=turned)["test"]
        assert got["accuracy"] == pytest.approx(1 - want["accuracy"])
        with pytest.raises(
            config.ConfigError, match=r"class 'no' is none .*--same no="
        ):
            evaluate.evaluate(trained, data=flags(path))


def test_the_verb_takes_the_data_by_flags(trained, written, capsys):
    words = [f"--data.{key}={value}" for key, value in flags(written("ab")).items()]
    words += ["--same", "a=bad", "--same", "b=good", "--metrics", "classification"]
    assert evaluate.main(["--workdir", str(trained), *words]) == 0
    found = json.loads(capsys.readouterr().out)["test"]
    want = evaluate.evaluate(trained)["test"]
    assert found["accuracy"] == pytest.approx(want["accuracy"])
    assert found["classification"]["accuracy"] == pytest.approx(want["accuracy"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "cvs"}, "did you mean 'csv'"),
        ({"name": "csv"}, "data.path"),
        ({"sise": "3"}, "unknown setting data.sise"),
    ],
)
def test_what_is_wrong_is_named(trained, data, message):
    with pytest.raises(config.ConfigError, match=message):
        evaluate.evaluate(trained, data=data)


def test_masks_are_numbered_anew_and_what_does_not_count_stays():
    mask = np.array([[0, 1], [255, 1]], np.uint8)
    source = Source([{"mask": mask}, {"mask": None}], ("cat", "ground"))
    found = renumbered(source, ("ground", "dog", "cat"), {})
    assert found.rows[0]["mask"].dtype == np.uint8
    assert found.rows[0]["mask"].tolist() == [[2, 0], [255, 0]]
    assert found.rows[1]["mask"] is None


def test_tags_are_numbered_anew_and_an_idle_rename_is_refused():
    rows = [{"tags": [0, 1, 1], "label": None}, {"label": 1}]
    found = renumbered(Source(rows, ("x", "y")), ("z", "y", "w"), {"x": "w"})
    assert found.classes == ("z", "y", "w")
    assert found.rows[0]["tags"] == [2, 1, 1]
    assert found.rows[1]["label"] == 1
    with pytest.raises(config.ConfigError, match="--same v: the data's classes are x"):
        renumbered(Source(rows, ("x",)), ("x",), {"v": "x"})
