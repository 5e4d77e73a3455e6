"""The ledger: each row once an epoch, in one order, whatever happened in between."""

import json

from fmjax.keeping import ledger
from tests import runs

CNN = "configs/cnn/fashion_mnist.py"


def test_each_row_once_an_epoch_in_the_order_of_an_uninterrupted_run(tmp_path):
    given = runs.tiny(CNN, steps=11, batch_size=16, log__ledger=True)
    given = given | {"checkpoint": {"every": 4}, "evaluate": None}
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    runs.run(straight, given)
    runs.run(cut, given, stop_at=4)
    # As a kill leaves it: steps past the checkpoint, and half a line.
    with (cut / "ledger/0.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "rows": [1, 2]}) + '\n{"step": 6, "ro')
    runs.run(cut, given, stop_at=6)
    runs.run(cut, given)
    found = ledger.read(cut)
    assert found == ledger.read(straight)
    assert list(found) == list(range(1, 12))
    rows = [row for step in found.values() for row in step]
    examples = len(set(rows))
    assert 2 * examples < 11 * 16, "more than two epochs"
    for epoch in (rows[:examples], rows[examples : 2 * examples]):
        assert sorted(epoch) == list(range(examples))
    assert rows[:examples] != rows[examples : 2 * examples]


def test_the_numbers_are_those_of_the_rows(tmp_path):
    """They come with the rows, not from arithmetic."""
    import numpy as np

    from fmjax.data.batches import Batches

    values = [{"x": np.float32(i * i)} for i in range(10)]
    inputs = lambda row, rng: {"x": row["x"]}  # noqa: E731
    for seed in (None, 3):
        made = Batches(values, inputs, 4, seed=seed)
        rows, batch = made.numbered(1)
        assert batch["x"].tolist() == [i * i for i in rows]


def test_what_other_processes_wrote_is_joined_and_taken_back(tmp_path):
    room = tmp_path / "ledger"
    room.mkdir()
    for rank in (0, 1):
        lines = [{"step": s, "rows": [10 * s + rank]} for s in (1, 2, 3)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (room / f"{rank}.jsonl").write_text(text)
    assert ledger.read(tmp_path) == {1: [10, 11], 2: [20, 21], 3: [30, 31]}
    book = ledger.Ledger(tmp_path, True, start=2)
    book.note(3, [7, 8])
    book.close()
    assert ledger.read(tmp_path) == {1: [10, 11], 2: [20, 21], 3: [7, 8]}


def test_nothing_is_kept_unless_asked_for(tmp_path):
    book = ledger.Ledger(tmp_path, False, start=0)
    book.note(1, [1])
    book.close()
    assert list(tmp_path.iterdir()) == []
