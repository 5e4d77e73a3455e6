"""Vocabularies learnt from texts: the same texts give the same file, in any process.

wordpiece    BERT's pieces and normaliser (Devlin et al. 2018; its own learner is not
             public: pieces are merged here by how often they are neighbours)
bpe          byte-level pairs: any text, no unknowns (Radford et al. 2019, section 2.2)
unigram      pieces with probabilities (Kudo 2018), and T5's 100 sentinels
characters   single characters, the most frequent ones
words        what stands between white space, the most frequent ones

The work is done by the `tokenizers` library.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # of wordpiece
DOCUMENT = "<|endoftext|>"
SENTINELS = 100  # <extra_id_0> .. <extra_id_99>: T5, section 3.1.4
RECIPES = {"wordpiece": 1, "bpe": 1, "unigram": 1, "characters": 1, "words": 1}
# A recipe counts up when the same texts would give another vocabulary.

_ALPHABET = 1000  # rarer characters of wordpiece become [UNK]
_PLAIN = ("<pad>", "</s>", "<unk>")  # T5's order


def train(
    kind: str, texts: Iterable[str], vocab_size: int, path: Path, *, cased: bool = True
) -> Tokenizer:
    """Learn a vocabulary and save it as a tokenizer.json at `path`.

    The vocabulary has `vocab_size` entries, specials included, and fewer where the
    texts have no more. Ids of the specials: wordpiece [PAD]=0, [UNK]=1, [CLS]=2,
    [SEP]=3, [MASK]=4; bpe <|endoftext|>=0; the others <pad>=0, </s>=1,
    <unk>=2, and for unigram <extra_id_0> is the last id, <extra_id_1> the one before,
    and so on. `cased` False lowers all letters (for wordpiece as BERT does).

    Raises ValueError for an unknown kind, for texts without words, and where the
    specials and single characters alone are more than `vocab_size`.
    """
    if kind not in RECIPES:
        raise ValueError(f"tokenizer.kind={kind!r}; it is {', '.join(RECIPES)}")
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError("no words to train a vocabulary on: the texts are empty")
    trainer = {
        "wordpiece": _wordpiece,
        "bpe": _bpe,
        "unigram": _unigram,
        "characters": _characters,
        "words": _words,
    }[kind]
    tokenizer = trainer(texts, vocab_size, cased)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer


def wordpiece(
    vocab: dict[str, int],
    cased: bool,
    *,
    strip_accents: bool | None = None,
    split_chinese: bool = True,
) -> Tokenizer:
    """BERT's tokenizer over a vocabulary that holds the five specials.

    strip_accents: None is where letters are lowered, as BERT does. split_chinese: each
    Chinese character is a word.
    """
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=not cased,
        strip_accents=strip_accents,
        handle_chinese_chars=split_chinese,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    return tokenizer


def _wordpiece(texts: list[str], vocab_size: int, cased: bool) -> Tokenizer:
    base = wordpiece({s: i for i, s in enumerate(SPECIALS)}, cased)
    first, later = _letters(texts, base)
    counts = first + later
    alphabet = sorted(counts, key=lambda c: (-counts[c], c))[:_ALPHABET]
    # The library numbers the inner characters (##x) in the order of a hash table, which
    # differs from run to run and decides ties. Given as specials, they are numbered
    # here.
    inner = [f"##{c}" for c in sorted(alphabet) if later[c]]
    base.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            show_progress=False,
            special_tokens=[*SPECIALS, *inner],
            initial_alphabet=sorted(alphabet),
            limit_alphabet=len(alphabet),
        ),
    )
    pieces = sorted(base.get_vocab().items(), key=lambda item: item[1])
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    _room(vocab_size, len(vocab))
    return wordpiece(vocab, cased)


def _letters(texts: list[str], base: Tokenizer) -> tuple[Counter, Counter]:
    """How often each character starts a word, and how often it comes later in one."""
    words: Counter[str] = Counter()
    for text in texts:
        clean = base.normalizer.normalize_str(text)
        words.update(w for w, _ in base.pre_tokenizer.pre_tokenize_str(clean))
    first: Counter[str] = Counter()
    later: Counter[str] = Counter()
    for word, count in words.items():
        first[word[0]] += count
        for character in word[1:]:
            later[character] += count
    return first, later


def _bpe(texts: list[str], vocab_size: int, cased: bool) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _room(vocab_size, 1 + len(alphabet))
    tokenizer = Tokenizer(models.BPE())
    if not cased:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[DOCUMENT],
        initial_alphabet=alphabet,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _unigram(texts: list[str], vocab_size: int, cased: bool) -> Tokenizer:
    plain = [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")]
    normalizer = normalizers.Sequence(
        plain if cased else [*plain, normalizers.Lowercase()]
    )
    metaspace: dict[str, Any] = dict(replacement="▁", prepend_scheme="always")
    base = Tokenizer(models.Unigram())
    base.normalizer = normalizer
    base.pre_tokenizer = pre_tokenizers.Metaspace(**metaspace)
    letters = {c for text in texts for c in normalizer.normalize_str(text)}
    _room(vocab_size, len(letters | {"▁"}) + len(_PLAIN) + SENTINELS)
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - SENTINELS,
        show_progress=False,
        special_tokens=list(_PLAIN),
        unk_token="<unk>",
    )
    base.train_from_iterator(texts, trainer)
    # The library adds up in the order of a hash table: the scores of two runs differ in
    # their last digits. Rounded, and sorted anew, they are the same.
    scores = _scores(base)
    pieces = sorted(
        ((piece, round(score, 4)) for piece, score in scores if piece not in _PLAIN),
        key=lambda item: (-item[1], item[0]),
    )
    sentinels = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(SENTINELS))]
    vocab = [*((name, 0.0) for name in _PLAIN), *pieces, *sentinels]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=_PLAIN.index("<unk>")))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(**metaspace)
    tokenizer.decoder = decoders.Metaspace(**metaspace)
    tokenizer.add_special_tokens([*_PLAIN, *(name for name, _ in sentinels)])
    return tokenizer


def _scores(tokenizer: Tokenizer) -> list[tuple[str, float]]:
    import json

    found = json.loads(tokenizer.to_str())["model"]["vocab"]
    return [(piece, float(score)) for piece, score in found]


def _characters(texts: list[str], vocab_size: int, cased: bool) -> Tokenizer:
    tokenizer = _whole(Counter("".join(texts)), vocab_size, cased)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def _words(texts: list[str], vocab_size: int, cased: bool) -> Tokenizer:
    tokenizer = _whole(Counter(" ".join(texts).split()), vocab_size, cased)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _whole(counts: Counter[str], vocab_size: int, cased: bool) -> Tokenizer:
    """Whole units, the most frequent ones; equals in the order of their code points."""
    _room(vocab_size, len(_PLAIN) + 1)
    if not cased:
        lower: Counter[str] = Counter()
        for unit, count in counts.items():
            lower[unit.lower()] += count
        counts = lower
    for name in _PLAIN:
        counts.pop(name, None)
    ordered = sorted(counts, key=lambda unit: (-counts[unit], unit))
    kept = [*_PLAIN, *ordered[: vocab_size - len(_PLAIN)]]
    vocab = {piece: i for i, piece in enumerate(kept)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    if not cased:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_special_tokens(list(_PLAIN))
    return tokenizer


def _room(vocab_size: int, least: int) -> None:
    if least > vocab_size:
        raise ValueError(
            f"vocab_size {vocab_size:,} is less than the {least:,} specials and "
            f"single characters of the corpus; ask for {least * 2:,} or more"
        )
