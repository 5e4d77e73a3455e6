"""What an earlier version has written is read, verified and gone on with."""

import json
import pathlib
import zipfile

import pytest

from fmjax import fsck
from fmjax.train import train
from tests import runs

FIXTURES = sorted((pathlib.Path(__file__).parent / "releases").glob("*.zip"))


def test_there_are_fixtures():
    assert {path.stem.split("-")[0] for path in FIXTURES} >= {"0.1.0"}


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_a_run_of_an_earlier_version_goes_on(fixture, tmp_path, capsys):
    with zipfile.ZipFile(fixture) as archive:
        archive.extractall(tmp_path)
    assert fsck.main([str(tmp_path)]) == 0
    assert "is good" in capsys.readouterr().out, "its digests are known too"
    straight = json.loads((tmp_path / "straight.json").read_text())
    cut = runs.losses(tmp_path)
    assert 0 < len(cut) < len(straight)
    settings = json.loads((tmp_path / "config.json").read_text("utf-8"))["config"]
    assert train(tmp_path, **settings)["status"] == "done"
    # On whatever processor it was written: not to the bit.
    assert runs.losses(tmp_path) == pytest.approx(straight, rel=1e-5)
    assert "new" not in capsys.readouterr().err.split(), "it was gone on with"
