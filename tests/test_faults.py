"""Whole runs that are hurt: what they do, say and leave."""

import json
import pathlib
import random
import sys
import types

import pytest

from fmjax import config, report
from fmjax.costs.memory import OutOfMemory
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


@pytest.mark.parametrize("reached", ["never", "once"])
def test_a_tracking_server_out_of_reach_ends_no_run(
    tmp_path, monkeypatch, capsys, reached
):
    def refuse(*args, **fields):
        raise ConnectionError("no route to host")

    run = types.SimpleNamespace(log=refuse, finish=refuse)
    begin = refuse if reached == "never" else lambda **fields: run
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=begin))
    given = runs.tiny(CNN, steps=3, log__wandb="some")
    assert runs.run(tmp_path, given)["status"] == "done"
    assert len(runs.losses(tmp_path)) == 3
    assert runs.losses(tmp_path, "validation/loss")
    said = capsys.readouterr().err
    assert said.count("tracker left out from") == (1 if reached == "never" else 2)
    assert "ConnectionError('no route to host')" in said


def test_a_changed_config_is_shown_and_refused_unless_it_is_safe(tmp_path):
    given = runs.tiny(CNN, steps=4)
    runs.run(tmp_path, given, stop_at=2)
    before = report.read(tmp_path), (tmp_path / "config.json").read_bytes()
    changed = given | {"seed": 5, "optim": given["optim"] | {"lr": 0.5}}
    with pytest.raises(config.ConfigError) as error:
        runs.run(tmp_path, changed)
    assert "holds a run with other settings" in str(error.value)
    assert f"optim.lr: {given['optim']['lr']} there, 0.5 now" in str(error.value)
    assert "seed: 0 there, 5 now" in str(error.value)
    assert (report.read(tmp_path), (tmp_path / "config.json").read_bytes()) == before
    safe = {"log": {"every": 2}, "parallel": {"devices": 2}, "accum": 2}
    assert runs.run(tmp_path, given | safe)["step"] == 4


def test_out_of_memory_names_the_largest_arrays_and_remedies(tmp_path):
    """Positions for 2^30 tokens are 256 GiB, of which there are three."""
    overcommit = pathlib.Path("/proc/sys/vm/overcommit_memory")
    if overcommit.exists() and overcommit.read_text().strip() == "1":
        pytest.skip("this system promises memory that it does not have")
    given = runs.tiny("configs/gpt/language_model.py", steps=2, model__width=64)
    given["model"]["max_length"] = 2**30
    with pytest.raises(OutOfMemory) as error:
        runs.run(tmp_path, given, parallel={"devices": 1})
    said = str(error.value)
    assert "a device is out of memory: RESOURCE_EXHAUSTED" in said
    assert "positions/embedding float32[1073741824, 64] 262,144.0 MiB" in said
    assert "parallel" not in said, "one device has nobody to share with"
    assert '--config.accum="2"' in said
