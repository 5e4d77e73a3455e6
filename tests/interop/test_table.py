"""The recorded differences: a row for every family, and within the project's bars."""

from tests import runs
from tests.golden import table


def test_every_case_is_counted():
    assert set(table.measured()) == set(table.CASES)
    assert sum(row["cases"] for row in table.rows()) == len(table.CASES)


def test_what_was_recorded_is_within_the_bars():
    for row in table.rows():
        assert row["bit_equal"], row
        assert max(row["act"], row["output"]) <= 1e-4, row
        assert row["loss"] <= 1e-5, row
        assert row["grad"] <= 1e-4, row


def test_the_readme_shows_them():
    text = (runs.ROOT / "README.md").read_text("utf-8")
    for row in table.rows():
        assert table.shown(row) in text, row
