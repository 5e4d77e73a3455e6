"""WordPiece vocabularies: trained the same way every time, or read from a file.

BERT's normaliser and pre-tokenizer (Devlin et al. 2018), by the `tokenizers` library.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, processors
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

from fmjax.data import cache, source, weights

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ALPHABET = 1000  # rarer characters become [UNK]
_RECIPE = 1  # counts up when the same texts would give another vocabulary


def train_wordpiece(
    texts: Iterable[str], vocab_size: int, path: Path, cased: bool = True
) -> Tokenizer:
    """Train a WordPiece vocabulary on texts and save it as a tokenizer.json at `path`.

    The specials are [PAD]=0, [UNK]=1, [CLS]=2, [SEP]=3, [MASK]=4. The same texts give
    the same file, in any process. The vocabulary is smaller than `vocab_size` where
    the texts have no more pieces that occur twice.

    Raises ValueError where there are no words, or more characters than places.
    """
    texts = list(texts)
    base = _assemble({s: i for i, s in enumerate(SPECIALS)}, cased)
    first, later = _characters(texts, base)
    counts = first + later
    alphabet = sorted(counts, key=lambda c: (-counts[c], c))[:_ALPHABET]
    if not alphabet:
        raise ValueError("no words to train a vocabulary on: the texts are empty")
    # The library numbers the inner characters (##x) in the order of a hash table, which
    # differs from run to run and decides ties. Given as specials, they are numbered
    # here.
    inner = [f"##{c}" for c in sorted(alphabet) if later[c]]
    base.train_from_iterator(
        texts,
        WordPieceTrainer(
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
    if len(vocab) > vocab_size:
        raise ValueError(
            f"vocab_size {vocab_size:,} is less than the {len(vocab):,} specials and "
            f"single characters of the corpus; ask for {len(vocab) * 2:,} or more"
        )
    tokenizer = _assemble(vocab, cased)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer


def load(path: str | Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, a directory that has one, or a vocab.txt.

    The path may be a name in `fmjax.data.weights`.

    A vocab.txt (one piece a line, the line number is the id) does not say whether case
    counts: it does where a piece has a capital. Padding and truncation set in the file
    are switched off. Raises FileNotFoundError, or ValueError naming what is wrong.
    """
    file = weights.directory(path)
    if file.is_dir():
        names = [n for n in ("tokenizer.json", "vocab.txt") if (file / n).is_file()]
        if not names:
            raise FileNotFoundError(f"{file} has no tokenizer.json and no vocab.txt")
        file = file / names[0]
    if not file.is_file():
        raise FileNotFoundError(
            f"no tokenizer at {file}; give a tokenizer.json, a directory with one, "
            "or a vocab.txt"
        )
    if file.suffix == ".txt":
        lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        pieces = [line.rstrip("\r") for line in lines]
        twice = [piece for piece, n in Counter(pieces).items() if n > 1]
        if twice:
            raise ValueError(
                f"{file}: piece {twice[0]!r} has two lines; ids are unclear"
            )
        vocab = {piece: i for i, piece in enumerate(pieces)}
        _check_specials(vocab, file)
        cased = any(p != p.lower() for p in pieces if p not in SPECIALS)
        return _assemble(vocab, cased)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no narrower type
        raise ValueError(
            f"{file} is not a tokenizer.json of the tokenizers library: {error}"
        ) from error
    _check_specials(tokenizer.get_vocab(), file)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def get(
    *,
    path: str | Path | None = None,
    corpus: Mapping[str, Any] | None = None,
    vocab_size: int | None = None,
    cased: bool = True,
) -> Tokenizer:
    """A tokenizer from a file, or trained once on a corpus and kept in home().

    path: see `load`. corpus: {'name': a source, and its fields}; its training split's
    `text` (and `text2`) is learned from, `vocab_size` pieces at most.
    """
    if (path is None) == (corpus is None):
        raise ValueError(
            "a tokenizer takes either path=... or corpus=..., vocab_size=..."
        )
    if path is not None:
        return load(path)
    if vocab_size is None:
        raise ValueError("a tokenizer trained on a corpus needs vocab_size, e.g. 8000")
    assert corpus is not None
    found = source.read(corpus, "train")
    key = cache.digest(
        "wordpiece", _RECIPE, found.facts["fingerprint"], vocab_size, cased
    )
    target = cache.home() / "tokenizers" / f"{key[:24]}.json"
    make = functools.partial(_train_on, found.rows, vocab_size, cased)
    return load(cache.once(target, make))


def fingerprint(tokenizer: Tokenizer) -> str:
    """sha256 (hex) of all that a tokenizer does: part of packed text's identity."""
    return cache.digest(tokenizer.to_str())


def special(tokenizer: Tokenizer, name: str) -> int:
    """The id of a special token such as '[MASK]'. Raises ValueError if it has none."""
    number = tokenizer.token_to_id(name)
    if number is None:
        raise ValueError(f"the tokenizer has no {name}; BERT inputs need {_LIST}")
    return int(number)


_LIST = ", ".join(SPECIALS)


def _train_on(rows: Any, vocab_size: int, cased: bool, path: Path) -> None:
    texts = []
    for i in range(len(rows)):
        row = rows[i]
        if "text" not in row:
            raise ValueError(
                f"the corpus has no text field, only {', '.join(row)}: a vocabulary "
                "needs a source of text"
            )
        texts += [row[name] for name in ("text", "text2") if row.get(name)]
    train_wordpiece(texts, vocab_size, path, cased)


def _check_specials(vocab: Mapping[str, int], file: Path) -> None:
    missing = [name for name in SPECIALS if name not in vocab]
    if missing:
        raise ValueError(
            f"{file} lacks the special tokens {', '.join(missing)}; a BERT vocabulary "
            f"has {_LIST}"
        )


def _characters(texts: list[str], base: Tokenizer) -> tuple[Counter, Counter]:
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


def _assemble(vocab: dict[str, int], cased: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=not cased)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    return tokenizer
