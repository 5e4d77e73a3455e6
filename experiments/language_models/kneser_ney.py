"""The model that any other must beat: interpolated modified Kneser-Ney n-grams.

Kneser & Ney 1995; Chen & Goodman 1998 (TR-10-98), section 4.4. Counts are numpy arrays:
a million words and order 5 take seconds. No library would do: NLTK's has one discount,
given by hand, and scores token by token; KenLM estimates outside Python.
"""

# N tokens in a line, U unlike n-grams of an order, V vocabulary

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Order(NamedTuple):
    """The n-grams of one order, as sorted keys: context * V + last token."""

    keys: np.ndarray  # int64 [U]
    counts: np.ndarray  # float64 [U], continuations but for the highest order
    discounts: np.ndarray  # float64 [4], what is taken off a count of 0, 1, 2, 3+
    total: np.ndarray  # float64 [contexts], the sum of a context's counts
    freed: np.ndarray  # float64 [contexts], the sum of its discounts


class KneserNey(NamedTuple):
    """p(w | c) = (count(c w) - D(count)) / total(c) + freed(c) / total(c) p(w | c'),

    c' being c without its first token; below the unigrams stands 1 / `size`. A context
    never seen passes on to c'. Contexts end at `document`, the token between documents,
    which is the first token of a document's contexts and what its last word is followed
    by.
    """

    orders: tuple[Order, ...]  # unigrams first
    document: int
    size: int  # tokens that may be predicted
    stride: int  # V: greater than any id


def fit(line: np.ndarray, *, order: int, document: int, size: int) -> KneserNey:
    """Counts a line of tokens, int [N], which begins and ends with `document`.

    order: the longest n-grams, 1 or more; size: how many tokens may be predicted.
    Counts of the highest order are those of the line; of the others, how many tokens
    were seen before the n-gram, except where it begins with `document`, before which
    nothing stands. Discounts are in closed form from the counts of counts (Chen &
    Goodman, eq. 26); where a line is too small for that, 0.5, 1 and 1.5.
    Raises ValueError for a line or an order that has no meaning.
    """
    line = np.asarray(line, np.int64)
    if order < 1 or line.ndim != 1 or len(line) < 3 or line[0] != document:
        raise ValueError(
            f"want an order of 1 or more and a line that begins with {document}; got "
            f"order {order} and a line {line.shape} that begins with {line[:1]}"
        )
    stride = int(line.max()) + 1
    history = _history(line, document)
    grams, keys, found = line, list[np.ndarray](), list[np.ndarray]()
    for n in range(1, order + 1):
        key = line if n == 1 else _extend(grams, line, stride)
        # A unigram has no context; an n-gram's n - 1 tokens lie in its document.
        at = np.flatnonzero(history >= max(n - 1, 1))
        unique, inverse = np.unique(key[at], return_inverse=True)
        if n == 1 and document not in unique:
            raise ValueError(f"the line does not end with {document}")
        grams = np.full(len(line), -1)
        grams[at] = inverse
        if n == 1:
            grams[line == document] = np.searchsorted(unique, document)
        keys.append(unique)
        found.append(grams)
    made = []
    for n, unique in enumerate(keys, 1):
        own = found[n - 1]
        counts = np.bincount(own[history >= max(n - 1, 1)], minlength=len(unique))
        if n < order:
            # A representative of each longer n-gram stands for one continuation.
            longer = found[n]
            first = np.flatnonzero(longer >= 0)
            _, where = np.unique(longer[first], return_index=True)
            before = np.bincount(own[first[where]], minlength=len(unique))
            start = np.zeros(len(unique), bool)
            if n > 1:
                start[own[(history == n - 1) & (own >= 0)]] = True
            counts = np.where(start, counts, before)
        contexts = len(keys[n - 2]) if n > 1 else 1
        made.append(_order(unique, counts.astype(np.float64), contexts, stride, n))
    return KneserNey(tuple(made), document, size, stride)


def probabilities(model: KneserNey, line: np.ndarray) -> np.ndarray:
    """p of line[1:], each given what is before it in its document: float64 [N - 1].

    line: int [N], beginning with `document`. Ids that were not counted have the share
    of a token that was never seen.
    """
    line = np.asarray(line, np.int64)
    if line.ndim != 1 or not len(line) or line[0] != model.document:
        raise ValueError(f"a line begins with {model.document}: {line[:3]}")
    history = _history(line, model.document)
    known = np.where(line < model.stride, line, model.stride)  # past every key
    contexts = np.zeros(len(line), np.int64)  # of length n - 1, before each token
    grams = np.full(len(line), -1)
    found = np.full(len(line), 1 / model.size)
    for n, order in enumerate(model.orders, 1):
        if n > 1:
            contexts = np.concatenate([[-1], grams[:-1]])
            contexts[history < n - 1] = -1
        seen = (contexts >= 0) & (known < model.stride)
        key = np.where(seen, contexts * model.stride + known, -1)
        grams = _find(order.keys, key)
        counts = np.where(grams >= 0, order.counts[grams], 0.0)
        kept = counts - order.discounts[np.minimum(counts, 3).astype(int)]
        usable = contexts >= 0
        usable[usable] = order.total[contexts[usable]] > 0
        total, freed = order.total[contexts], order.freed[contexts]
        here = (kept + freed * found) / np.where(usable, total, 1.0)
        found = np.where(usable, here, found)
    return found[1:]


def _history(line: np.ndarray, document: int) -> np.ndarray:
    """How many tokens before each are in its document, `document` at its head included.

    0 for the first token of the line alone: it is never predicted.
    """
    at = np.arange(len(line))
    starts = np.maximum.accumulate(np.where(line == document, at, 0))
    return np.concatenate([[0], at[1:] - starts[:-1]])


def _extend(grams: np.ndarray, line: np.ndarray, stride: int) -> np.ndarray:
    """Keys of the n-grams that end at each token, from the (n - 1)-grams before it."""
    return np.concatenate([[-1], grams[:-1] * stride + line[1:]])


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of `wanted` is in `keys`, -1 where it is not."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def _order(
    keys: np.ndarray, counts: np.ndarray, contexts: int, stride: int, n: int
) -> Order:
    ones, twos, threes, fours = (float((counts == c).sum()) for c in (1, 2, 3, 4))
    taken = np.array([0.0, 0.5, 1.0, 1.5])
    if min(ones, twos, threes, fours) > 0:
        share = ones / (ones + 2 * twos)
        ratios = np.array([2 * twos / ones, 3 * threes / twos, 4 * fours / threes])
        closed = np.arange(1, 4) - share * ratios
        if (closed > 0).all():
            taken[1:] = closed
    context = keys // stride if n > 1 else np.zeros(len(keys), np.int64)
    off = taken[np.minimum(counts, 3).astype(int)]
    return Order(
        keys,
        counts,
        taken,
        np.bincount(context, counts, contexts),
        np.bincount(context, off, contexts),
    )
