"""Tokenizers: the same file in every process, and clear words about a wrong one."""

import functools
import json
import subprocess
import sys

import pytest

from fmjax.data import cache, source, tokenizer, vocabulary

TEXTS = [
    source.read({"name": "synthetic_text", "classes": 4}, "train").rows[i]["text"]
    for i in range(60)
] + ["naïve café 東京 U.S. don't ##odd", "ÀÉ ñ ö ü ß ø å"]


train = functools.partial(vocabulary.train, "wordpiece")


@pytest.fixture
def trained(tmp_path):
    return vocabulary.train("wordpiece", TEXTS, 300, tmp_path / "t.json")


def test_specials_come_first(trained):
    assert [trained.id_to_token(i) for i in range(5)] == list(vocabulary.SPECIALS)
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
    cased = train(TEXTS, 300, tmp_path / "a.json", cased=True)
    uncased = train(TEXTS, 300, tmp_path / "b.json", cased=False)
    assert cased.encode("The").ids != cased.encode("the").ids
    assert uncased.encode("The").ids == uncased.encode("the").ids
    assert uncased.encode("café").ids == uncased.encode("cafe").ids


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_training_is_the_same_in_every_process(tmp_path, kind):
    corpus = tmp_path / "texts.json"
    corpus.write_text(json.dumps(TEXTS))
    code = (
        "import json, pathlib, sys; from fmjax.data import vocabulary;"
        "texts = json.loads(pathlib.Path(sys.argv[1]).read_text());"
        "vocabulary.train(sys.argv[4], texts, int(sys.argv[3]), "
        "pathlib.Path(sys.argv[2]))"
    )
    # Sizes that end inside a run of pieces of equal count, where ties decide.
    for size in {"wordpiece": (150, 190), "bpe": (330,), "unigram": (230,)}[kind]:
        shas = set()
        for i in range(3):
            out = tmp_path / f"{size}-{i}.json"
            subprocess.run(
                [sys.executable, "-c", code, str(corpus), str(out), str(size), kind],
                check=True,
            )
            shas.add(cache.sha256(out))
        assert len(shas) == 1


def test_training_says_what_it_cannot(tmp_path):
    with pytest.raises(ValueError, match=r"vocab_size 20 is less than the .* ask for"):
        train(TEXTS, 20, tmp_path / "t.json")
    with pytest.raises(ValueError, match=r"texts are empty"):
        train(["", " "], 100, tmp_path / "t.json")
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
    pieces = [*vocabulary.SPECIALS, "the", "lamp"]
    (tmp_path / "vocab.txt").write_text("\r\n".join(pieces))
    found = tokenizer.load(tmp_path / "vocab.txt")
    assert found.encode("THE Lamp", add_special_tokens=False).ids == [5, 6]


def test_marks_in_an_uncased_vocab_do_not_make_it_cased(tmp_path):
    pieces = [*vocabulary.SPECIALS, "[E1]", "<S>", "the", "straße"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    found = tokenizer.load(tmp_path / "vocab.txt")
    assert found.encode("THE Straße", add_special_tokens=False).ids == [7, 8]
    (tmp_path / "vocab.txt").write_text("\n".join([*pieces, "İ"]))
    found = tokenizer.load(tmp_path / "vocab.txt")
    assert found.encode("THE İ", add_special_tokens=False).ids == [1, 9]


def test_accents_and_chinese_characters_are_as_the_settings_say(tmp_path):
    pieces = [*vocabulary.SPECIALS, "schön", "schon", "東", "東京"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))

    def ids(**said):
        settings = json.dumps({"do_lower_case": True} | said)
        (tmp_path / "tokenizer_config.json").write_text(settings)
        return tokenizer.load(tmp_path).encode("Schön 東京").ids[1:-1]

    assert ids() == ids(strip_accents=None, tokenize_chinese_chars=True) == [6, 7, 1]
    assert ids(strip_accents=False) == [5, 7, 1]
    assert ids(tokenize_chinese_chars=False) == [6, 8]
    assert ids(strip_accents=True, do_lower_case=False) == [1, 7, 1]


def test_a_vocab_s_settings_say_whether_case_counts(tmp_path):
    pieces = [*vocabulary.SPECIALS, "the", "lamp"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text('{"do_lower_case": false}')
    found = tokenizer.load(tmp_path)
    assert found.encode("The lamp", add_special_tokens=False).ids == [1, 6]
    for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        settings.write_text(json.dumps({name: "false"}))
        with pytest.raises(ValueError, match=f"{name} must be true or false, got 'fal"):
            tokenizer.load(tmp_path)
    settings.write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is no JSON"):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("added_tokens.json", {"<e1>": 7}, "special token added='<e1>'"),
        (
            *("special_tokens_map.json", {"additional_special_tokens": ["the"]}),
            "additional_special_tokens='the'",
        ),
        ("special_tokens_map.json", {"unk_token": "[MASK]"}, "unk_token='.MASK.'"),
        ("tokenizer_config.json", {"cls_token": {"content": "[X]"}}, "cls_token='.X.'"),
        (
            *("tokenizer_config.json", {"added_tokens_decoder": {"7": {"content": 3}}}),
            "special token added=3",
        ),
        (
            *("tokenizer_config.json", {"word_tokenizer_type": "mecab"}),
            "word_tokenizer_type='mecab'",
        ),
        (
            *("config.json", {"tokenizer_class": "BertJapaneseTokenizer"}),
            "tokenizer_class='BertJapaneseTokenizer'",
        ),
        ("tokenizer_config.json", [], r"tokenizer_config\.json is not a JSON object"),
    ],
)
def test_files_beside_a_vocab_that_ask_for_other_tokens_are_refused(
    file, content, message, tmp_path
):
    pieces = [*vocabulary.SPECIALS, "the", "lamp"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    usual = {"unk_token": {"content": "[UNK]"}, "eos_token": "[SEP]", "bos_token": None}
    usual |= {"additional_special_tokens": [], "tokenizer_class": "BertTokenizerFast"}
    usual |= {"added_tokens_decoder": {"0": {"content": "[PAD]", "special": True}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(usual))
    (tmp_path / "added_tokens.json").write_text("{}")
    assert tokenizer.load(tmp_path).encode("the").ids == [2, 5, 3]
    if isinstance(content, dict) and file == "tokenizer_config.json":
        content = usual | content
    elif file == "config.json":
        (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        tokenizer.load(tmp_path)


def test_a_folder_of_byte_pairs_is_read(tmp_path):
    texts = ["the lamp on the table", "a lamp, a table"] * 3
    made = vocabulary.train("bpe", texts, 270, tmp_path / "made" / "tokenizer.json")
    folder = tmp_path / "pairs"
    folder.mkdir()
    made.model.save(str(folder))
    assert {p.name for p in folder.iterdir()} == {"vocab.json", "merges.txt"}
    found = tokenizer.load(folder)
    for text in ("the lamp<|endoftext|>", " 灯 \n lamp's", "the  table"):
        assert found.encode(text).ids == made.encode(text).ids
        assert found.decode(found.encode(text).ids, skip_special_tokens=False) == text
    settings = folder / "tokenizer_config.json"
    for other in (
        {"add_prefix_space": True},
        {"add_bos_token": True},
        {"pad_token": "[PAD]"},
        {"tokenizer_class": "CLIPTokenizer"},
    ):
        settings.write_text(json.dumps(other))
        with pytest.raises(ValueError, match=f"{next(iter(other))}=.* from a vocab"):
            tokenizer.load(folder)
    usual = {"add_prefix_space": False, "unk_token": "<|endoftext|>", "pad_token": None}
    settings.write_text(json.dumps(usual | {"tokenizer_class": "GPT2Tokenizer"}))
    assert tokenizer.load(folder).to_str() == found.to_str()
    (folder / "merges.txt").write_text("#version: 0.2\nq x\n")
    with pytest.raises(ValueError, match="do not make a tokenizer"):
        tokenizer.load(folder)
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(ValueError, match=r"has no <\|endoftext\|>"):
        tokenizer.load(folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["spiece.model"], r"spiece\.model .*AutoTokenizer\.from_pretrained\('"),
        (["source.spm", "target.spm", "vocab.json"], "MarianTokenizer"),
        (["tokenizer_config.json"], "has no tokenizer.json and no vocab.txt, nor"),
    ],
)
def test_a_folder_without_a_tokenizer_that_is_read_names_the_remedy(
    names, message, tmp_path
):
    for name in names:
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tokenizer.load(tmp_path)


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
    vocab.write_bytes(b"[PAD]\n\xff\n")
    with pytest.raises(ValueError, match=r"vocab\.txt is not UTF-8"):
        tokenizer.load(vocab)
    vocab.write_text("\n".join([*vocabulary.SPECIALS, "the", "the"]))
    with pytest.raises(ValueError, match=r"'the' has two lines"):
        tokenizer.load(vocab)


def test_a_json_of_another_family_loads_and_says_its_roles(tmp_path):
    found = vocabulary.train("bpe", TEXTS, 300, tmp_path / "t.json")
    assert tokenizer.load(tmp_path / "t.json").to_str() == found.to_str()
    assert tokenizer.role(found, "document") == tokenizer.role(found, "end") == 0
    with pytest.raises(ValueError, match=r"no token for pad .* it has: end, document"):
        tokenizer.role(found, "pad")
    with pytest.raises(ValueError, match=r"no <extra_id_0>; use T5's"):
        tokenizer.sentinels(found)


@pytest.mark.parametrize("cased", [True, False])
@pytest.mark.parametrize("kind", ["bpe", "unigram", "characters"])
def test_text_comes_back(kind, cased, tmp_path):
    found = vocabulary.train(kind, TEXTS, 400, tmp_path / "t.json", cased=cased)
    assert found.get_vocab_size() <= 400
    for text in (TEXTS[0], "naïve café 東京 U.S."):
        text = text if cased else text.lower()
        assert found.decode(found.encode(text, add_special_tokens=False).ids) == text


def test_bytes_have_no_unknowns(tmp_path):
    found = vocabulary.train("bpe", TEXTS, 300, tmp_path / "t.json")
    text = "ψ never seen 🎈\n\ttabs"
    assert found.decode(found.encode(text).ids) == text


def test_unigram_has_t5s_specials(tmp_path):
    found = vocabulary.train("unigram", TEXTS, 300, tmp_path / "t.json")
    roles = [tokenizer.role(found, name) for name in ("pad", "end", "unknown")]
    assert roles == [0, 1, 2]
    sentinels = tokenizer.sentinels(found)
    last = found.get_vocab_size() - 1
    assert sentinels == list(range(last, last - 100, -1))
    assert found.encode("ψ", add_special_tokens=False).ids[-1] == 2


def test_the_rarest_characters_are_unknown(tmp_path):
    found = vocabulary.train(
        "characters", ["aab", "abc", "a\nb"], 5, tmp_path / "t.json"
    )
    assert found.encode("abc\n").ids == [3, 4, 2, 2]


def test_words_are_what_stands_between_spaces(tmp_path):
    texts = ["The cat sat .", "the cat , the"]
    found = vocabulary.train("words", texts, 5, tmp_path / "t.json", cased=False)
    assert found.encode("The cat sat").ids == [3, 4, 2]
    assert found.decode([3, 4, 3]) == "the cat the"


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer.kind='letters'; it is wordpiece"):
        vocabulary.train("letters", TEXTS, 300, tmp_path / "t.json")


def test_encode_names_the_row():
    found = vocabulary.wordpiece(
        {s: i for i, s in enumerate(vocabulary.SPECIALS)}, True
    )
    with pytest.raises(ValueError, match=r"row 7: `text` holds half of a surrogate"):
        tokenizer.encode(found, {"id": 7, "text": "a\ud800"}, "text")
    with pytest.raises(ValueError, match=r"row 7: `text` is '  '"):
        tokenizer.encode(found, {"id": 7, "text": "  "}, "text")
