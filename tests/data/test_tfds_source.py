"""Any prepared TFDS set by name, read without TensorFlow; clear words where not."""

import io
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fmjax.data.sources import tfds as source


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """A set as TFDS's own are: an Image feature, no validation split."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="tiny",
            features=tfds.features.FeaturesDict(
                {
                    "picture": tfds.features.Image(shape=(4, 4, 1)),
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=["no", "yes"]),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(20),
            "test": self._generate_examples(4),
        }

    def _generate_examples(self, number):
        for i in range(number):
            data = io.BytesIO()
            Image.new("L", (4, 4), i).save(data, "png")
            yield i, {"picture": data.getvalue(), "text": f"t{i}", "label": i % 2}


@pytest.fixture
def prepared(tmp_path):
    tfds.disable_progress_bar()
    place = tmp_path / "prepared"
    TinyPictures(data_dir=place, file_format="array_record").download_and_prepare()
    return str(place)


def test_a_prepared_set_by_name(prepared, capsys):
    capsys.readouterr()
    fields = {"dataset": "tiny_pictures", "data_dir": prepared, "image": "picture"}
    train = source.load("train", **fields)
    held = source.load("validation", **fields)
    test = source.load("test", **fields)
    assert [len(s.rows) for s in (train, held, test)] == [18, 2, 4]
    assert train.classes == ("no", "yes")
    seen = set()
    for found in (train, held):
        for i in range(len(found.rows)):
            row = found.rows[i]
            number = int(row["text"][1:])
            assert row["id"] == i
            assert row["label"] == number % 2
            assert row["image"].shape == (4, 4, 1)
            assert row["image"].dtype == np.uint8
            assert (row["image"] == number).all()
            seen.add(number)
    assert seen == set(range(20))
    assert train.facts["fingerprint"] != held.facts["fingerprint"]
    assert train.facts["origin"] == "tiny_pictures/1.0.0"
    assert capsys.readouterr().out == ""
    assert "tensorflow" not in sys.modules


def test_wrong_features_and_splits(prepared):
    fields = {"dataset": "tiny_pictures", "data_dir": prepared}
    assert set(source.load("train", **fields).rows[0]) == {"text", "label", "id"}
    with pytest.raises(
        ValueError, match="no feature 'img' for image; its features are"
    ):
        source.load("train", **fields, image="img")
    with pytest.raises(ValueError, match=r"splits train, test: set data.validation"):
        source.load("validation", **fields, validation="dev")
    with pytest.raises(ValueError, match="the splits are train, validation, test"):
        source.load("dev", **fields)


def test_an_unknown_set_suggests_names(tmp_path):
    with pytest.raises(ValueError, match=r"no data set 'mnis'; did you mean .*mnist"):
        source.load("train", dataset="mnis", data_dir=str(tmp_path))


def test_a_set_that_cannot_be_prepared_says_how(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(RuntimeError, match="no route to host") as caught:
        source.load("train", dataset="mnist", data_dir=str(tmp_path))
    assert "tfds build mnist --file_format=array_record" in str(caught.value)
    assert "data.data_dir=DIR" in str(caught.value)
