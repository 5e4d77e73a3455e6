"""`fmjax fsck`: what is wrong with which step, and an exit status."""

import json
import random

import pytest

from fmjax import fsck
from fmjax.config import ConfigError
from tests.keeping.test_digests import flip, sound, workdir  # noqa: F401  (fixtures)


def test_a_sound_workdir(workdir, capsys):  # noqa: F811
    assert fsck.main([str(workdir)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "checkpoints/1 is good",
        "checkpoints/2 is good",
        "best/2 is good",
    ]


def test_a_flipped_bit_is_named_and_the_status_is_1(workdir, capsys):  # noqa: F811
    flip(workdir / "checkpoints/1/state/manifest.ocdbt", random.Random(0))
    (workdir / "best/2/weights/_METADATA").write_text("")
    (workdir / "checkpoints/9.orbax-checkpoint-tmp").mkdir()
    before = sorted(workdir.rglob("*"))
    assert fsck.main([str(workdir), "--json"]) == 1
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(x["where"], x["status"]) for x in said] == [
        ("checkpoints/1", "damaged"),
        ("checkpoints/2", "good"),
        ("checkpoints/9.orbax-checkpoint-tmp", "unfinished"),
        ("best/2", "damaged"),
    ]
    assert said[0]["problem"].startswith("state/manifest.ocdbt differs")
    assert said[3]["problem"].startswith("weights/_METADATA has 0 bytes")
    assert sorted(workdir.rglob("*")) == before, "it changes nothing"


def test_digests_cut_off_from_a_step_are_damage(workdir, capsys):  # noqa: F811
    (workdir / "checkpoints/2/digests.json").unlink()
    assert fsck.main([str(workdir)]) == 1
    assert "checkpoints/2 is damaged: digests.json is gone" in capsys.readouterr().out


def test_where_there_is_nothing_to_check(tmp_path):
    with pytest.raises(ConfigError, match="nothing to check"):
        fsck.fsck(tmp_path)
