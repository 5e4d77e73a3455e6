"""Generation against searches written out plainly, without a cache.

Equality with transformers, token for token, is in tests/interop.
"""

import functools
import itertools

import jax
import numpy as np
import pytest

from fmjax import generation
from fmjax.generation import generate, left_pad
from fmjax.models import gpt, t5, transformer

V = 9
SMALL = dict(vocab_size=V, width=12, depth=2, heads=3, mlp_width=20, max_length=24)
NETS = {
    "gpt": gpt.Model(**SMALL, tied=False),
    "t5": t5.Model(**SMALL, head_width=5, buckets=8, max_distance=12, tied=False),
    "transformer": transformer.Model(**SMALL, output_bias=True),
}
ROWS = [[3], [1, 4, 2, 8, 5], [7, 7, 1]]
START = {"gpt": None, "t5": 0, "transformer": [2, 6]}  # texts may begin with several


@functools.cache
def started(name):
    inputs = {"tokens": np.ones((1, 2), np.int32)}
    inputs["decoder_tokens"] = inputs["tokens"]
    # Away from the initialisers, where all tokens are about as likely; with these seeds
    # rows differ, and a row isn't one token over and over.
    seed, factor = {"gpt": (0, 40.0), "t5": (0, 3.0), "transformer": (1, 3.0)}[name]
    variables = jax.jit(NETS[name].init)(jax.random.key(seed), inputs)

    def scaled(path, x):
        return x * factor if x.ndim == 2 and "embed" not in str(path) else x

    return jax.tree_util.tree_map_with_path(scaled, variables)


def padded(name, rows):
    """Prompts padded on the left, sources on the right."""
    if START[name] is None:
        return left_pad(rows)
    made = left_pad([row[::-1] for row in rows])
    return {k: v[:, ::-1] for k, v in made.items()}


def run(name, rows=ROWS, **options):
    options = dict(length=6, start=START[name], pad_to=8) | options
    return generate(NETS[name], started(name), padded(name, rows), **options)


@functools.cache
def _logits(name):
    return jax.jit(lambda variables, inputs: NETS[name].apply(variables, inputs))


def plain(name, row, text):
    """Log probabilities [V] of what follows `text`, by a whole pass without a cache."""
    begin = START[name]
    if begin is None:
        tokens, extra = [*row, *text], {}
    else:
        tokens = [*np.atleast_1d(begin), *text]
        mask = np.arange(8)[None] < len(row)
        source = np.pad(np.array([row]), ((0, 0), (0, 8 - len(row))))
        extra = {"tokens": source.astype(np.int32), "mask": mask}
    # What comes later is not seen, so that one width serves all.
    ids = np.pad(np.array([tokens], np.int32), ((0, 0), (0, 16 - len(tokens))))
    given = {"tokens": ids} if begin is None else extra | {"decoder_tokens": ids}
    out = _logits(name)(started(name), given)[0, len(tokens) - 1]
    return np.asarray(jax.nn.log_softmax(out), np.float64)


def greedy(name, row, length=6, end=(), stop=()):
    text, score = [], 0.0
    for _ in range(length):
        log_p = plain(name, row, text)
        text.append(int(log_p.argmax()))
        score += log_p[text[-1]]
        if text[-1] in end or any(text[-len(s) :] == list(s) for s in stop):
            break
    return text, score / len(text)


def texts(found):
    return [
        row[:n].tolist() for row, n in zip(found.tokens, found.lengths, strict=True)
    ]


@pytest.mark.parametrize("name", NETS)
def test_greedy_is_the_likeliest_token_each_time_whatever_the_batch(name):
    found = run(name)
    want = [greedy(name, row) for row in ROWS]
    assert texts(found) == [text for text, _ in want]
    assert len({tuple(text) for text in texts(found)}) > 1
    np.testing.assert_allclose(found.scores, [s for _, s in want], atol=1e-4)
    alone = [texts(run(name, [row]))[0] for row in ROWS]
    assert texts(found) == alone
    assert texts(run(name, pad_to=11)) == alone


@pytest.mark.parametrize("name", NETS)
def test_texts_end_at_the_end_token_and_at_stop_sequences(name):
    free = texts(run(name))
    end = free[1][3]
    found = run(name, end=end, pad=end)
    want = [greedy(name, row, end=(end,))[0] for row in ROWS]
    assert texts(found) == want
    for row, n in zip(found.tokens, found.lengths, strict=True):
        assert (row[n:] == end).all()
    pair = free[1][2:4]
    found = run(name, stop=[pair, [V - 1, V - 2, V - 1]])
    assert texts(found) == [greedy(name, row, stop=[pair])[0] for row in ROWS]
    assert texts(found)[1][-2:] == pair


@pytest.mark.parametrize("name", NETS)
def test_enough_beams_find_the_likeliest_text_of_all(name):
    # With V ** 2 beams, three tokens are searched wholly.
    found = run(name, ROWS[1:2], length=3, beams=V**2, early_stopping=True)
    every = {}
    for a, b in itertools.product(range(V), repeat=2):
        first, second = plain(name, ROWS[1], []), plain(name, ROWS[1], [a])
        for c, p in enumerate(plain(name, ROWS[1], [a, b])):
            every[a, b, c] = (first[a] + second[b] + p) / 3
    best = max(every, key=every.get)
    assert texts(found) == [list(best)]
    np.testing.assert_allclose(found.scores, every[best], atol=1e-4)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_several_beams_are_no_worse_than_one_and_score_what_they_say(name, penalty):
    options = dict(end=4, length_penalty=penalty)
    one, four = run(name, **options), run(name, **options, beams=4)
    for row, text, said in zip(ROWS, texts(four), four.scores, strict=True):
        total = sum(plain(name, row, text[:i])[token] for i, token in enumerate(text))
        np.testing.assert_allclose(said, total / len(text) ** penalty, atol=1e-4)
        assert text[-1] == 4 or len(text) == 6
    assert four.scores.sum() >= one.scores.sum() - 1e-4
    alone = [texts(run(name, [row], **options, beams=4))[0] for row in ROWS]
    assert texts(four) == alone


def test_the_length_penalty_of_gnmt():
    options = dict(beams=4, length_penalty=0.6, gnmt=True)
    found = run("transformer", **options, end=4)
    other = run("transformer", **options | {"gnmt": False}, end=4)
    for row, text, said in zip(ROWS, texts(found), found.scores, strict=True):
        total = sum(
            plain("transformer", row, text[:i])[token] for i, token in enumerate(text)
        )
        want = total / ((5 + len(text)) / 6) ** 0.6
        np.testing.assert_allclose(said, want, atol=1e-4)
    assert not np.allclose(found.scores, other.scores)


def test_sampling_follows_the_model_s_probabilities():
    rows, key = [ROWS[1]] * 4000, jax.random.key(1)
    p = np.exp(plain("gpt", ROWS[1], []))

    def shares(**options):
        found = run("gpt", rows, length=1, key=key, **options)
        return np.bincount(found.tokens[:, 0], minlength=V) / len(rows)

    def near(got, want):
        # Five standard deviations.
        assert (abs(got - want) <= 5 * np.sqrt(want * (1 - want) / len(rows))).all()

    near(shares(temperature=1.0), p)
    near(shares(temperature=2.0), p**0.5 / (p**0.5).sum())
    order = np.argsort(-p)
    three = np.where(np.isin(np.arange(V), order[:3]), p, 0)
    near(shares(temperature=1.0, top_k=3), three / three.sum())
    # Just more than the two likeliest have: the third is needed.
    nucleus = p[order[:2]].sum() + 1e-4
    near(shares(temperature=1.0, top_p=nucleus), three / three.sum())
    two = np.where(np.isin(np.arange(V), order[:2]), p, 0)
    near(shares(temperature=1.0, top_p=nucleus - 2e-4), two / two.sum())


def test_a_sampled_text_follows_from_its_key_and_prompt_alone():
    options = dict(temperature=1.5, key=jax.random.key(3))
    together = texts(run("gpt", [ROWS[1]] * 3 + ROWS[2:], **options))
    assert together == texts(run("gpt", [ROWS[1]] * 3 + ROWS[2:], **options))
    assert len({tuple(text) for text in together[:3]}) > 1
    own = jax.random.fold_in(jax.random.key(3), 3)[None]
    alone = run("gpt", ROWS[2:], temperature=1.5, key=own)
    assert texts(alone) == together[3:]


def test_rules():
    free = texts(run("gpt"))
    banned = sorted({free[0][0], free[1][0]})
    found = run("gpt", suppress=banned)
    assert not np.isin(found.tokens, banned).any()
    end = free[1][0]
    assert run("gpt", end=end).lengths[1] == 1
    assert run("gpt", end=end, min_length=3).lengths.min() >= 3
    found = run("gpt", end=V - 1, force_end=True, suppress=[V - 1])
    assert (found.tokens[:, 5] == V - 1).all()


def test_repetition_penalty_is_the_paper_s():
    found = run("gpt", repetition_penalty=3.0)
    assert texts(found) != texts(run("gpt"))
    for row, text in zip(ROWS, texts(found), strict=True):
        for i, token in enumerate(text):
            ids = np.pad(np.array([row + text[:i]]), ((0, 0), (0, 16 - len(row) - i)))
            logits = _logits("gpt")(started("gpt"), {"tokens": ids})[0]
            scores = np.array(logits[len(row) + i - 1])
            for seen in {*row, *text[:i]}:  # padding, token 0, is not seen
                scores[seen] *= 3 if scores[seen] < 0 else 1 / 3
            assert token == scores.argmax()


def test_one_program_serves_prompts_and_numbers_of_all_kinds():
    options = dict(key=jax.random.key(0), top_p=0.5, length=5)
    generate(NETS["gpt"], started("gpt"), left_pad(ROWS), temperature=1.0, **options)
    before = generation._run._cache_size()
    for rows in ([[1], [2], [3]], [[5] * 16, [1], [2, 2]]):
        found = generate(
            NETS["gpt"], started("gpt"), left_pad(rows), temperature=0.3, **options
        )
        assert found.tokens.shape == (3, 5)
    assert generation._run._cache_size() == before


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("gpt", {"length": 0}, "length is 0"),
        ("gpt", {"beams": 0}, "beams is 0"),
        ("gpt", {"temperature": 1.0}, "needs a key"),
        ("gpt", {"temperature": -1.0}, "temperature is -1"),
        ("gpt", {"top_k": 3}, "give a temperature"),
        ("gpt", {"top_k": 0, "temperature": 1.0}, "top_k is 0"),
        ("gpt", {"top_p": 1.5, "temperature": 1.0}, "top_p is 1.5"),
        ("gpt", {"repetition_penalty": 0.0}, "repetition_penalty is 0"),
        ("gpt", {"beams": 2, "temperature": 1.0}, "don't sample"),
        ("gpt", {"early_stopping": "soon"}, "'soon'"),
        ("gpt", {"min_length": 2}, "give `end`"),
        ("gpt", {"end": V}, "end has id 9"),
        ("gpt", {"stop": [[]]}, "stop sequence is empty"),
        ("gpt", {"start": 0}, "leave `start` out"),
        ("gpt", {"length": 22, "pad_to": None}, "truncate it or ask for fewer"),
        ("gpt", {"pad_to": 4}, "longest row's 5"),
        ("t5", {"start": None}, "give the start token"),
        ("t5", {"length": 24}, "ask for 23 at most"),
    ],
)
def test_what_has_no_meaning_is_refused(name, options, said):
    with pytest.raises(ValueError, match=said):
        run(name, ROWS[1:2], **options)


def test_bad_prompts_are_refused():
    net, variables = NETS["gpt"], started("gpt")
    with pytest.raises(ValueError, match="prompt is empty"):
        left_pad([[1], []])
    rows = left_pad([[1], [1, 2]])
    flipped = {k: v[:, ::-1] for k, v in rows.items()}
    with pytest.raises(ValueError, match="padded on the left"):
        generate(net, variables, flipped, length=2)
    rows["mask"] = rows["mask"] & np.array([[True], [False]])
    with pytest.raises(ValueError, match="row 1 is empty"):
        generate(net, variables, rows, length=2)
    with pytest.raises(ValueError, match="have id 9"):
        generate(net, variables, left_pad([[V]]), length=2)
    with pytest.raises(ValueError, match="must be integers"):
        generate(net, variables, {"tokens": np.ones((1, 2))}, length=2)
