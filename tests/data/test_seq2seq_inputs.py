"""Text to text, and T5's span corruption, undone to see that nothing is lost."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from fmjax.data import source, tokenizer
from fmjax.data.inputs import seq2seq, span_corruption
from fmjax.data.sources import windows

CORPUS = {"name": "synthetic_text", "size": 20}


@pytest.fixture
def words():
    return tokenizer.get(corpus=CORPUS, kind="unigram", vocab_size=300)


def test_the_papers_lengths(words):
    # 568 tokens become 512 and 114 (the published code's random_spans_helper).
    assert span_corruption.counts(568, 0.15, 3.0) == (85, 28)
    make = span_corruption.make(tokenizer=words, window=568)
    row = {"tokens": np.full(568, 7, np.int32), "length": 568}
    one = make(row, np.random.default_rng(0))
    assert one["inputs"]["tokens"].shape == one["inputs"]["mask"].shape == (512,)
    assert one["targets"].shape == one["inputs"]["decoder_tokens"].shape == (114,)
    assert one["inputs"]["mask"].all()
    assert one["weights"].all()


def test_both_sides_together_are_the_window(words):
    found = windows.load(
        "train", corpus=CORPUS, tokenizer=words, length=24, overlap=0, separator=False
    )
    make = span_corruption.make(tokenizer=words, window=24)
    extra, end = tokenizer.sentinels(words), tokenizer.role(words, "end")
    rng = np.random.default_rng(0)
    for i in range(len(found.rows)):
        row = found.rows[i]
        one = make(row, rng)
        source_ids = one["inputs"]["tokens"][one["inputs"]["mask"]].tolist()
        target = one["targets"][one["weights"] > 0].tolist()
        assert source_ids.pop() == target.pop() == end
        hidden: dict[int, list[int]] = {}
        for token in target:
            if token in extra:
                hidden[token] = []
                last = token
            else:
                hidden[last].append(token)
        assert list(hidden) == extra[: len(hidden)]
        whole = [t for token in source_ids for t in hidden.get(token, [token])]
        assert whole == row["tokens"][: row["length"]].tolist()
        assert one["inputs"]["decoder_tokens"][0] == tokenizer.role(words, "pad")
        shifted = one["inputs"]["decoder_tokens"][1:]
        assert shifted.tolist() == one["targets"][:-1].tolist()


@given(
    length=strategies.integers(2, 200),
    rate=strategies.floats(0.05, 0.95),
    mean_span=strategies.floats(1, 10),
    seed=strategies.integers(0, 99),
)
@settings(max_examples=200)
def test_as_many_tokens_are_hidden_as_asked(length, rate, mean_span, seed):
    hidden, spans = span_corruption.counts(length, rate, mean_span)
    mask = span_corruption.noise_mask(
        length, rate, mean_span, np.random.default_rng(seed)
    )
    assert mask.shape == (length,)
    assert mask.sum() == hidden
    assert not mask[0]
    starts = (np.diff(mask.astype(int)) == 1).sum()
    assert starts == min(spans, length - hidden)


def test_every_cut_is_equally_likely():
    # 3 hidden of 6 in 2 spans: (1,2) or (2,1) hidden, by (1,2) or (2,1) visible.
    rng = np.random.default_rng(0)
    seen: dict[bytes, int] = {}
    for _ in range(4000):
        mask = span_corruption.noise_mask(6, 0.5, 1.5, rng)
        seen[mask.tobytes()] = seen.get(mask.tobytes(), 0) + 1
    assert len(seen) == 4
    assert all(abs(count - 1000) < 5 * 27 for count in seen.values())  # 5 sigma


def test_evaluation_corrupts_the_same_way_each_time(words):
    make = span_corruption.make(tokenizer=words, window=60)
    row = {"tokens": np.arange(60, dtype=np.int32), "length": 60}
    first, again = make(row, None), make(row, None)
    np.testing.assert_array_equal(first["targets"], again["targets"])
    rng = np.random.default_rng(0)
    assert (make(row, rng)["targets"] != make(row, rng)["targets"]).any()


def test_span_corruption_says_what_it_cannot(words):
    bpe = tokenizer.get(corpus=CORPUS, kind="bpe", vocab_size=300)
    with pytest.raises(ValueError, match=r"no token for pad"):
        span_corruption.make(tokenizer=bpe, window=24)
    with pytest.raises(ValueError, match=r"needs 150 sentinels, .* has 100"):
        span_corruption.make(tokenizer=words, window=3000)
    with pytest.raises(ValueError, match=r"rate=1.0, mean_span=3.0"):
        span_corruption.make(tokenizer=words, window=24, rate=1.0)
    with pytest.raises(ValueError, match=r"windows are 30 long, inputs.window is 24"):
        span_corruption.make(tokenizer=words, window=24)(
            {"tokens": np.zeros(30, np.int32), "length": 30}, None
        )


def test_text_to_text(words):
    make = seq2seq.make(
        tokenizer=words,
        length=32,
        target_length=6,
        source="mood: {text}",
        target="{label}",
        classes=("bad", "good"),
    )
    row = {**source.read(CORPUS, "train").rows[0], "label": 1, "id": 3}
    one = make(row)
    end, pad = tokenizer.role(words, "end"), tokenizer.role(words, "pad")
    real = one["inputs"]["mask"]
    ids = one["inputs"]["tokens"][real].tolist()
    text = words.encode(f"mood: {row['text']}", add_special_tokens=False).ids
    assert ids == [*text[:31], end]
    assert (one["inputs"]["tokens"][~real] == pad).all()
    answer = words.encode("good", add_special_tokens=False).ids
    targets = one["targets"][one["weights"] > 0].tolist()
    assert targets == [*answer[:5], end]
    new = make({"text": "a lamp", "id": 4})  # nothing to learn from: prediction
    assert new["weights"].sum() == 0
    with pytest.raises(ValueError, match=r"row 5 has no text for inputs.source="):
        make({"label": 1, "id": 5})


@pytest.mark.parametrize("template", ["no field", "{", "{0}", "{a.b}"])
def test_a_template_names_fields(words, template):
    with pytest.raises(ValueError, match=r"inputs.source='"):
        seq2seq.make(tokenizer=words, source=template)
