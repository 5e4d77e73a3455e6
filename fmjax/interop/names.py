"""Tables between a public checkpoint's tensor names and parameter paths, both ways.

A family writes its names once, as entries; reading, writing and reporting follow.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

Canonical = Callable[[str], str]


class Entry(NamedTuple):
    """One tensor: its public name and its parameter's path.

    transpose: the tensor is the parameter's transpose, or of a convolution [out, in, h,
    w] where the parameter is [h, w, in, out]. rest: paths of further
    parameters, which the tensor holds beside the first one, along its last axis (after
    transposing). lead: the tensor has an axis of length 1 in front. flat: the parameter
    has one, and the tensor has not.
    """

    name: str
    path: str
    transpose: bool = False
    rest: tuple[str, ...] = ()
    lead: bool = False
    flat: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """All parameters that the tensor holds."""
        return (self.path, *self.rest)


def linear(name: str, path: str, *, bias: bool = True) -> list[Entry]:
    """torch.nn.Linear keeps [out, in], a linen kernel is [in, out]."""
    weight = Entry(f"{name}.weight", f"{path}/kernel", transpose=True)
    return [weight, Entry(f"{name}.bias", f"{path}/bias")] if bias else [weight]


def conv(name: str, path: str, *, bias: bool = True) -> list[Entry]:
    """torch.nn.Conv2d keeps [out, in, h, w], a linen kernel is [h, w, in, out]."""
    return linear(name, path, bias=bias)


def conv1d(name: str, *paths: str) -> list[Entry]:
    """transformers' Conv1D keeps [in, out], and may hold several maps of one input."""

    def entry(ours: str, theirs: str) -> Entry:
        first, *rest = (f"{path}/{ours}" for path in paths)
        return Entry(f"{name}.{theirs}", first, rest=tuple(rest))

    return [entry("kernel", "weight"), entry("bias", "bias")]


def norm(name: str, path: str, *, bias: bool = True) -> list[Entry]:
    """The scale of a norm, and its bias, which RMS norms don't have."""
    weight = Entry(f"{name}.weight", f"{path}/scale")
    return [weight, Entry(f"{name}.bias", f"{path}/bias")] if bias else [weight]


def embedding(name: str, path: str) -> list[Entry]:
    """An embedding table."""

    return [Entry(f"{name}.weight", f"{path}/embedding")]


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of every tensor and every parameter of one checkpoint."""

    matched: dict[str, str]  # tensor name in the file -> parameter path, the first one
    missing: tuple[str, ...] = ()  # parameters for which the file has no tensor
    unused: tuple[str, ...] = ()  # tensors of heads which were not asked for
    unknown: tuple[str, ...] = ()  # tensors which the family does not know
    ignored: tuple[str, ...] = ()  # buffers that hold no weights, and were checked
    settings: tuple[str, ...] = ()  # keys of config.json that nothing here reads

    def __str__(self) -> str:
        parts = [f"{len(self.matched)} tensors read"]
        for field in ("missing", "unused", "unknown", "ignored", "settings"):
            if names := getattr(self, field):
                parts.append(f"{field}: {', '.join(names)}")
        return "; ".join(parts)


def assign(
    tensors: Mapping[str, np.ndarray],
    entries: Iterable[Entry],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    canonical: Canonical,
    other: Callable[[str], bool],
    buffers: Callable[[str, np.ndarray], bool],
) -> tuple[dict[str, np.ndarray], Report]:
    """Parameters by path, float32 in host memory, and the report.

    shapes: each parameter path with its shape. canonical: a name as found in files to
    the name in `entries`, so that the aliases of one tensor meet. other: does this
    canonical name belong to a head that was not asked for. buffers: is this tensor a
    buffer without information; may raise.
    Raises ValueError where a shape is wrong, a dtype is not floating, or two aliases of
    one tensor differ.
    """
    table = {entry.name: entry for entry in entries}
    matched: dict[str, str] = {}
    unused: list[str] = []
    unknown: list[str] = []
    ignored: list[str] = []
    params: dict[str, np.ndarray] = {}
    source: dict[str, str] = {}
    around = wrapper(tensors)
    for found, tensor in tensors.items():
        name = canonical(found.removeprefix(around))
        entry = table.get(name)
        if entry is None:
            if buffers(name, tensor):
                ignored.append(found)
            else:
                (unused if other(name) else unknown).append(found)
            continue
        for path, value in convert(found, tensor, entry, shapes).items():
            if path in params and not np.array_equal(params[path], value):
                raise ValueError(
                    f"{source[path]} and {found} are two names of one tied tensor "
                    f"({path}), but their values differ"
                )
            params[path], source[path] = value, found
        matched[found] = entry.path
    return params, Report(
        matched=matched,
        missing=tuple(path for path in shapes if path not in params),
        unused=tuple(unused),
        unknown=tuple(unknown),
        ignored=tuple(ignored),
    )


def wrapper(found: Iterable[str]) -> str:
    """What torch's wrappers put in front of every name: DataParallel, compile."""
    prefix, names = "", list(found)
    known = ("module.", "_orig_mod.")
    while names and (
        more := next((k for k in known if all(n.startswith(k) for n in names)), "")
    ):
        prefix, names = prefix + more, [n.removeprefix(more) for n in names]
    return prefix


def collect(
    params: Mapping[str, np.ndarray], entries: Iterable[Entry]
) -> dict[str, np.ndarray]:
    """Tensors by public name: the inverse of `assign`."""
    found = {}
    for entry in entries:
        parts = [params[path] for path in entry.paths]
        value = np.concatenate(parts, axis=-1) if entry.rest else parts[0]
        value = value.transpose(_axes(value.ndim)) if entry.transpose else value
        value = value[None] if entry.lead else value
        found[entry.name] = value[0] if entry.flat else value
    return found


class Bare(NamedTuple):
    """A family's class of transformers without the head of its language model.

    Its tensors are the language model's without `prefix`, without those of `head`, and
    with those that `fixed` makes of a net, which are no parameters.
    """

    name: str
    prefix: str = ""
    head: tuple[str, ...] = ()
    fixed: Callable[[Any], dict[str, np.ndarray]] = lambda net: {}

    def of(self, net: Any, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Tensors by public name. Raises ValueError where a head would be lost."""
        there = [name for name in self.head if name in tensors]
        # A bias of zeros is none.
        lost = [n for n in there if n.endswith("weight") or tensors[n].any()]
        if lost:
            raise ValueError(
                f"architectures: {self.name} has no {', '.join(lost)}, which this net "
                "has, and which would be lost; leave architectures out"
            )
        kept = {k: v for k, v in tensors.items() if k not in self.head}
        kept |= self.fixed(net)
        return {k.removeprefix(self.prefix): v for k, v in kept.items()}


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts as {path: leaf}."""

    return traverse_util.flatten_dict(dict(tree), sep="/")


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{path: leaf} as nested dicts."""

    return traverse_util.unflatten_dict(dict(flat), sep="/")


def _axes(ndim: int) -> tuple[int, ...]:
    """The axes of a kernel, [in, out] or [h, w, in, out], in torch's order."""
    return (1, 0) if ndim == 2 else (3, 2, 0, 1)


def convert(
    found: str,
    tensor: np.ndarray,
    entry: Entry,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, np.ndarray]:
    """Parameters by path, float32, of the tensor called `found`. Raises as `assign`."""
    first = shapes[entry.path]
    widths = [shapes[path][-1] for path in entry.paths] if entry.rest else []
    shape = (*first[:-1], sum(widths)) if entry.rest else first
    axes = _axes(len(shape)) if entry.transpose else tuple(range(len(shape)))
    expected = tuple(shape[i] for i in axes)
    expected = (1, *expected) if entry.lead else expected
    expected = expected[1:] if entry.flat else expected
    if tensor.shape != expected:
        raise ValueError(
            f"{found} has shape {tensor.shape}, the config asks for {expected} "
            f"(parameter {', '.join(entry.paths)}, {first})"
        )
    # Not np.issubdtype: bfloat16 is no numpy.floating.
    if tensor.dtype.kind not in "fV" or tensor.dtype.itemsize == 1:
        raise ValueError(f"{found} is {tensor.dtype}, not floating-point weights")
    value = tensor[0] if entry.lead else tensor
    value = value[None] if entry.flat else value
    value = value.transpose(np.argsort(axes))
    parts = np.split(value, np.cumsum(widths)[:-1], axis=-1) if widths else [value]
    return {
        path: np.array(part, np.float32, order="C")
        for path, part in zip(entry.paths, parts, strict=True)
    }
