"""Frozen features of a run through `evaluate`: neighbours and probes see the training
split, and know nothing of the labels of what they are tested on."""

import numpy as np
import pytest

from fmjax import config, evaluate, workdir
from fmjax.metrics import knn, linear_probe
from tests import runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simclr")
    runs.run(folder, runs.tiny("configs/simclr/imagenet.py", steps=1))
    return folder


def test_neighbours_and_probes_are_those_of_the_predictions(trained):
    found = evaluate.evaluate(
        trained, splits=("validation",), metrics=("knn", "linear_probe")
    )["validation"]
    run = workdir.open_run(trained)
    sets = {}
    for split in ("train", "validation"):
        data = run.batches(run.parts.data(split).rows)
        params, extras = run.weights(data.example(0))
        said, given = evaluate.predictions(run, data, params, extras)
        sets[split] = said["features"], given["label"]
    (train, train_labels), (test, labels) = sets["train"], sets["validation"]
    assert (train.shape[0], test.shape[0]) == (64, 16)
    given = dict(features=test, labels=labels)
    given |= dict(train_features=train, train_labels=train_labels)
    # Of the images as they are: the views' crops and colours have no part in them.
    other = {"area": (0.1, 0.2), "strength": 1.0}
    settings = run.settings | {"inputs": run.settings["inputs"] | other}
    parts = run.parts._replace(inputs=config.assemble(settings).inputs)
    data = run._replace(parts=parts).batches(run.parts.data("validation").rows)
    said, _ = evaluate.predictions(run, data, params, extras)
    np.testing.assert_array_equal(said["features"], test)
    for name, module in (("knn", knn), ("linear_probe", linear_probe)):
        assert found[name] == module.compute(**given)
    assert np.isfinite(found["loss"])


def test_a_metric_of_features_is_refused_where_there_are_none(tmp_path):
    runs.run(tmp_path, runs.tiny("configs/cnn/fashion_mnist.py", steps=1))
    with pytest.raises(config.ConfigError, match="'knn' needs features, train_feat"):
        evaluate.evaluate(tmp_path, splits=("validation",), metrics=("knn",))
