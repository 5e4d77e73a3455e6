"""Whole runs that are hurt: what they do, say and leave."""

import json
import random

import pytest

from fmjax import config, report
from tests import runs
from tests.keeping.test_digests import flip

CNN = "configs/cnn/fashion_mnist.py"


def events(workdir):
    text = (workdir / "events.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_goes_on_from_the_newest_good_step_and_says_so(tmp_path, capsys):
    given = runs.tiny(CNN, steps=6, checkpoint__every=2, checkpoint__keep=3)
    straight, hurt = tmp_path / "straight", tmp_path / "hurt"
    runs.run(straight, given)
    runs.run(hurt, given, stop_at=4)
    flip(hurt / "checkpoints/4/state/manifest.ocdbt", random.Random(0))
    capsys.readouterr()
    assert runs.run(hurt, given)["status"] == "done"
    said = capsys.readouterr().err
    assert "from step 2" in said
    assert "checkpoints/4: state/manifest.ocdbt differs" in said
    (event,) = events(hurt)
    assert (event["step"], event["event"]) == (2, "damaged")
    assert runs.losses(hurt, "event/damaged") == [1.0]
    # What was lost is done again, to the same bits.
    assert runs.losses(hurt) == runs.losses(straight)
    assert runs.losses(hurt, "validation/loss") == runs.losses(
        straight, "validation/loss"
    )


def test_where_every_step_is_damaged_the_run_refuses(tmp_path):
    given = runs.tiny(CNN, steps=4, checkpoint__every=2)
    runs.run(tmp_path, given, stop_at=3)
    before = report.read(tmp_path)
    for path in tmp_path.glob("checkpoints/*/state/manifest.ocdbt"):
        path.write_bytes(b"")
    with pytest.raises(config.ConfigError, match="every step is damaged"):
        runs.run(tmp_path, given)
    assert report.read(tmp_path) == before
