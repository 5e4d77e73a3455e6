"""WordPiece: the same file in every process, and clear words about a wrong one."""

import json
import subprocess
import sys

import pytest

from fmjax.data import cache, source, tokenizer

TEXTS = [
    source.read({"name": "synthetic_text", "classes": 4}, "train").rows[i]["text"]
    for i in range(60)
] + ["naïve café 東京 U.S. don't ##odd", "ÀÉ ñ ö ü ß ø å"]


@pytest.fixture
def trained(tmp_path):
    return tokenizer.train_wordpiece(TEXTS, 300, tmp_path / "t.json")


def test_specials_come_first(trained):
    assert [trained.id_to_token(i) for i in range(5)] == list(tokenizer.SPECIALS)
    assert trained.get_vocab_size() <= 300
    encoded = trained.encode("The bright lamp [MASK] near", "the lake")
    assert encoded.tokens[0] == "[CLS]"
    assert encoded.tokens.count("[SEP]") == 2
    assert "[MASK]" in encoded.tokens
    assert trained.decode(trained.encode("The lamp shines").ids) == "The lamp shines"


def test_text_that_looks_like_an_inner_piece_is_plain_text(trained):
    assert "##" not in trained.get_vocab()
    pieces = trained.encode("##a", add_special_tokens=False).tokens
    assert pieces[0] != "##a"


def test_case_counts_or_not(tmp_path):
    cased = tokenizer.train_wordpiece(TEXTS, 300, tmp_path / "a.json", cased=True)
    uncased = tokenizer.train_wordpiece(TEXTS, 300, tmp_path / "b.json", cased=False)
    assert cased.encode("The").ids != cased.encode("the").ids
    assert uncased.encode("The").ids == uncased.encode("the").ids
    assert uncased.encode("café").ids == uncased.encode("cafe").ids


def test_training_is_the_same_in_every_process(tmp_path):
    corpus = tmp_path / "texts.json"
    corpus.write_text(json.dumps(TEXTS))
    code = (
        "import json, pathlib, sys; from fmjax.data import tokenizer;"
        "texts = json.loads(pathlib.Path(sys.argv[1]).read_text());"
        "tokenizer.train_wordpiece(texts, int(sys.argv[3]), pathlib.Path(sys.argv[2]))"
    )
    # Sizes that end inside a run of pieces of equal count, where ties decide.
    for size in (150, 190):
        shas = set()
        for i in range(3):
            out = tmp_path / f"{size}-{i}.json"
            subprocess.run(
                [sys.executable, "-c", code, str(corpus), str(out), str(size)],
                check=True,
            )
            shas.add(cache.sha256(out))
        assert len(shas) == 1


def test_training_says_what_it_cannot(tmp_path):
    with pytest.raises(ValueError, match=r"vocab_size 20 is less than the .* ask for"):
        tokenizer.train_wordpiece(TEXTS, 20, tmp_path / "t.json")
    with pytest.raises(ValueError, match=r"texts are empty"):
        tokenizer.train_wordpiece(["", " "], 100, tmp_path / "t.json")
    assert not (tmp_path / "t.json").exists()


def test_get_trains_once_for_a_corpus_and_its_settings(home):
    corpus = {"name": "synthetic_text", "size": 40}
    first = tokenizer.get(corpus=corpus, vocab_size=200)
    files = sorted((home / "tokenizers").glob("*.json"))
    stamp = files[0].stat().st_mtime_ns
    again = tokenizer.get(corpus=corpus, vocab_size=200)
    assert tokenizer.fingerprint(first) == tokenizer.fingerprint(again)
    assert files[0].stat().st_mtime_ns == stamp
    tokenizer.get(corpus=corpus, vocab_size=200, cased=False)
    tokenizer.get(corpus=corpus | {"seed": 1}, vocab_size=200)
    assert len(sorted((home / "tokenizers").glob("*.json"))) == 3


def test_get_wants_one_of_two(tmp_path):
    for fields in ({}, {"path": "x", "corpus": {"name": "synthetic_text"}}):
        with pytest.raises(ValueError, match=r"either path=... or corpus"):
            tokenizer.get(**fields)
    with pytest.raises(ValueError, match=r"needs vocab_size"):
        tokenizer.get(corpus={"name": "synthetic_text"})
    with pytest.raises(ValueError, match=r"no text field"):
        tokenizer.get(corpus={"name": "synthetic_images"}, vocab_size=100)


def test_load_from_each_kind_of_file(trained, tmp_path):
    trained.enable_truncation(4)
    trained.enable_padding(length=9)
    trained.save(str(tmp_path / "tokenizer.json"))
    vocab = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "vocab.txt").write_text("\n".join(p for p, _ in vocab) + "\n")
    text = "The bright lamp shines near the lake."
    trained.no_truncation()
    trained.no_padding()
    for path in (tmp_path, tmp_path / "tokenizer.json", tmp_path / "vocab.txt"):
        assert tokenizer.load(path).encode(text).ids == trained.encode(text).ids


def test_a_vocab_without_capitals_is_uncased(tmp_path):
    pieces = [*tokenizer.SPECIALS, "the", "lamp"]
    (tmp_path / "vocab.txt").write_text("\r\n".join(pieces))
    found = tokenizer.load(tmp_path / "vocab.txt")
    assert found.encode("THE Lamp", add_special_tokens=False).ids == [5, 6]


def test_load_names_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"give a tokenizer.json"):
        tokenizer.load(tmp_path / "nothing.json")
    with pytest.raises(FileNotFoundError, match=r"no tokenizer.json and no vocab.txt"):
        tokenizer.load(tmp_path)
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    with pytest.raises(ValueError, match=r"bad.json is not a tokenizer.json"):
        tokenizer.load(bad)
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("[PAD]\n[UNK]\n[CLS]\nthe\n")
    with pytest.raises(ValueError, match=r"lacks the special tokens \[SEP\], \[MASK\]"):
        tokenizer.load(vocab)
    vocab.write_text("\n".join([*tokenizer.SPECIALS, "the", "the"]))
    with pytest.raises(ValueError, match=r"'the' has two lines"):
        tokenizer.load(vocab)
