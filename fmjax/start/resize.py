"""Parameters of one vocabulary or length fitted to another."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from fmjax.config import ConfigError
from fmjax.layers import patches


class Rows:
    """Which row of an old vocabulary each row of a new one is, by token.

    Tokens are the same by their text; a special token, where the old vocabulary lacks
    it, by what it is for ([SEP] and </s>).
    """

    def __init__(self, net: Any, tokenizer: Any, old: str):
        """tokenizer: the new one; old: where the other is. Raises ConfigError."""
        from fmjax.data import tokenizer as tokenizers

        if tokenizer is None:
            raise ConfigError("init_from.vocabulary needs this config's own tokenizer")
        folder = pathlib.Path(old)
        path = folder / "tokenizer.json"
        try:
            theirs = tokenizers.load(path if path.is_file() else old)
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"init_from.vocabulary: no tokenizer at {old} ({error}); say where it "
                "is by init_from.old_tokenizer"
            ) from error
        self.rows = getattr(net, "vocab_size", None) or tokenizer.get_vocab_size()
        ours, before = tokenizer.get_vocab(), theirs.get_vocab()
        shared = {ours[token]: before[token] for token in set(ours) & set(before)}
        roles = tokenizers.roles(tokenizer), tokenizers.roles(theirs)
        for role in set(roles[0]) & set(roles[1]):
            shared.setdefault(roles[0][role], roles[1][role])
        self.shared = dict(sorted(shared.items()))
        self.theirs = theirs.get_vocab_size()

    def fit(self, name: str, value: Any, fresh: Any) -> tuple[np.ndarray, str]:
        """(`fresh` with the rows of shared tokens from `value`, how many they are).

        The axis is the one that counts this model's vocabulary; where both of a table's
        do, the first of an embedding and the last of a kernel. Raises ValueError where
        none does, or the others differ.
        """
        value, made = np.asarray(value), np.array(fresh)
        axes = [a for a, size in enumerate(made.shape) if size == self.rows]
        if not axes or value.ndim != made.ndim:
            raise ValueError(
                f"{value.shape} there and {made.shape} here: no axis has this "
                f"vocabulary's {self.rows:,} rows"
            )
        axis = axes[-1] if name.endswith("kernel") else axes[0]
        old, new = np.moveaxis(value, axis, 0), np.moveaxis(made, axis, 0)
        if old.shape[1:] != new.shape[1:] or len(old) < self.theirs:
            raise ValueError(
                f"{value.shape} there and {made.shape} here differ in more than the "
                f"vocabulary, or there are more than {len(old):,} tokens there"
            )
        new[[*self.shared]] = old[[*self.shared.values()]]  # a view of `made`
        return made, f"{len(self.shared):,} of {len(new):,} rows by token"


def truncate(value: Any, fresh: Any) -> tuple[np.ndarray, str]:
    """(the first rows of `value`, then those of `fresh` if it is longer, how many)."""
    value, made = np.asarray(value), np.array(fresh)
    if value.shape[1:] != made.shape[1:] or len(value) == len(made):
        return value, ""
    kept = min(len(value), len(made))
    made[:kept] = value[:kept]
    return made, f"the first {kept:,} of {len(value):,} rows, {len(made):,} here"


def square(net: Any) -> None:
    """Raises ValueError for a net whose images have other than a square of patches."""
    image, patch = (getattr(net, field, None) for field in ("image", "patch"))
    if image and patch and len({*patches.grid(image, patch)}) > 1:
        rows, columns = patches.grid(image, patch)
        raise ValueError(f"this model's {rows}x{columns} patches are no square")
