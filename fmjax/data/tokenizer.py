"""Tokenizers from files, or learnt once from a corpus; special tokens by role."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from fmjax.data import cache, source, tokenizer_files, vocabulary, weights

ROLES = {  # what a special token is for, and the names it goes by
    "pad": ("[PAD]", "<pad>"),
    "unknown": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
    "end": ("</s>", "[SEP]", vocabulary.DOCUMENT),
    "document": (vocabulary.DOCUMENT, "</s>", "[SEP]"),
}
TEXTS = ("text", "text2", "source", "target", "first", "second", "question", "context")


def load(path: str | Path) -> Tokenizer:
    """The tokenizer of a file, or of a checkpoint's folder.

    path: a tokenizer.json; a vocab.txt (WordPiece, one piece a line, the line number is
        the id); a folder that has one of these, or vocab.json with merges.txt (GPT-2's
        byte pairs); or a name as in `weights.directory`.

    A vocab.txt alone does not say whether case counts: it does where a piece of a text
    has a capital, unless tokenizer_config.json says `do_lower_case`; transformers takes
    a silent file for lower case, whatever the pieces. `strip_accents` and
    `tokenize_chinese_chars` are followed, too. Padding and truncation set in a file are
    switched off.

    Raises FileNotFoundError, or ValueError naming what is wrong, and what to do where
    there is only a sentencepiece model, or where files beside a vocabulary ask for
    tokens or settings that it is not read with.
    """
    return tokenizer_files.read(weights.directory(path))


def get(
    *,
    path: str | Path | None = None,
    corpus: Mapping[str, Any] | None = None,
    kind: str = "wordpiece",
    vocab_size: int | None = None,
    cased: bool = True,
) -> Tokenizer:
    """A tokenizer from a file, or learnt once from a corpus and kept in home().

    path: see `load`. corpus: {'name': a source, and its fields}; its training split's
    texts (the fields in TEXTS, and `words` with spaces between them) are learnt from.
    kind, vocab_size, cased: see `vocabulary.train`.
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
    recipe = vocabulary.RECIPES.get(kind)
    key = cache.digest(kind, recipe, found.facts["fingerprint"], vocab_size, cased)
    target = cache.home() / "tokenizers" / f"{key[:24]}.json"

    def make(path: Path) -> None:
        texts = texts_of(found.rows)
        vocabulary.train(kind, texts, vocab_size, path, cased=cased)

    return load(cache.once(target, make))


def texts_of(rows: Any) -> Iterator[str]:
    """All texts of a source's rows. Raises ValueError for a row that has none."""
    for i in range(len(rows)):
        row = rows[i]
        found = [row[name] for name in TEXTS if row.get(name)]
        if row.get("words"):
            found.append(" ".join(row["words"]))
        if not found:
            raise ValueError(
                f"the corpus has no text field, only {', '.join(row)}: a vocabulary "
                "needs a source of text"
            )
        yield from found


def fingerprint(tokenizer: Tokenizer) -> str:
    """sha256 (hex) of all that a tokenizer does: part of packed text's identity."""
    return cache.digest(tokenizer.to_str())


def role(tokenizer: Tokenizer, name: str) -> int:
    """The id of the special token for a role, a key of ROLES.

    Raises ValueError where the vocabulary has none, naming the roles that it has.
    """
    found = roles(tokenizer)
    if name not in found:
        there = ", ".join(found) or "none"
        raise ValueError(
            f"the tokenizer has no token for {name} ({' or '.join(ROLES[name])}); it "
            f"has: {there}. Use a tokenizer of the kind that these inputs are for"
        )
    return found[name]


def sentinels(tokenizer: Tokenizer) -> list[int]:
    """Ids of <extra_id_0>, <extra_id_1>, ... as far as they go (T5, section 3.1.4).

    Raises ValueError where there are none.
    """
    found: list[int] = []
    while (number := tokenizer.token_to_id(f"<extra_id_{len(found)}>")) is not None:
        found.append(number)
    if not found:
        raise ValueError(
            "the tokenizer has no <extra_id_0>; use T5's, or kind='unigram'"
        )
    return found


def encode(tokenizer: Tokenizer, row: Mapping[str, Any], name: str) -> list[int]:
    """The ids of a row's text field, without specials.

    Raises ValueError, naming the row, where it is no text or an empty one.
    """
    text = row.get(name)
    if not isinstance(text, str) or not text.strip():
        shown = f"is {text!r}"[:80] if name in row else "is missing"
        raise ValueError(
            f"row {row.get('id', '(no id)')}: `{name}` {shown}; it must be a text "
            "with at least one character. Leave such rows out (own data: "
            "bad_rows='skip')"
        )
    try:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    except TypeError as error:  # what the library says of half a surrogate pair
        raise ValueError(
            f"row {row.get('id', '(no id)')}: `{name}` holds half of a surrogate pair, "
            "which is no character; repair the text"
        ) from error
    return found


def roles(tokenizer: Tokenizer) -> dict[str, int]:
    """The id for every role, of ROLES, that the vocabulary has a token for."""
    found = {}
    for name, spellings in ROLES.items():
        numbers = (tokenizer.token_to_id(spelling) for spelling in spellings)
        first = next((n for n in numbers if n is not None), None)
        if first is not None:
            found[name] = first
    return found
