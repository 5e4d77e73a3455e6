"""Numbers -> an inline SVG string: curves, confusion matrices, intervals, reliability.

Figures are transparent and draw their ink in `currentColor`, so that a page shows them
light or dark; their text is text, set in the reader's own font, so that any script can
be read, searched and spoken. The same numbers give the same bytes: no date, no random
identifier. Nothing global is touched: no pyplot, no backend switched.

Colours are Okabe & Ito's, which colour-blind readers tell apart, the blue a shade
lighter for dark pages; lines also differ in their dashes. Names are data: none is read
as mathematics or markup.
"""

import importlib
import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fmjax.reporting.svg import legal

PALETTE = ("#1F83C4", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
MARKS = ("o", "s", "^", "D")
DASHES = ("-", "--", "-.", ":")
INK = "#010203"  # stands for currentColor, which matplotlib does not know
WIDTH = 5.2  # inches: 374 CSS pixels in points, readable on a phone without a zoom

Run = tuple[ArrayLike, ArrayLike]


def curves(
    series: Mapping[str, Sequence[Run]],
    x: str,
    y: str,
    title: str = "",
    *,
    log: bool = False,
) -> str:
    """Curves over training: each seed a thin line, their mean a thick one.

    series: name -> runs, one a seed, each (xs [n], ys [n]) with lengths of their own;
    x, y: axis labels; log: x on a logarithmic axis. The mean is drawn over the xs that
    every run of a name has, so that one which stopped early makes no jump. NaN and
    infinity leave a gap.
    Returns SVG. Raises ValueError for no series, no run, or xs and ys unlike in length.
    """
    _some(series, "series")
    data = {name: [_run(name, run) for run in runs] for name, runs in series.items()}
    for name, runs in data.items():
        _some(runs, f"runs of {name!r}")

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        handles = []
        for index, runs in enumerate(data.values()):
            style = {
                "color": PALETTE[index % len(PALETTE)],
                "linestyle": DASHES[index % len(DASHES)],
            }
            shared, mean = _mean(runs)
            if len(runs) > 1:
                for xs, ys in runs:
                    axes.plot(xs, ys, linewidth=0.8, alpha=0.55, **style)
            few = "o" if len(shared) <= 12 else ""
            handles += axes.plot(
                shared, mean, linewidth=2, marker=few, markersize=4, **style
            )
        _axes(axes, x, y, log)
        if len(data) > 1:
            _legend(figure, handles, list(data))

    return svg(draw, title, height=3.4)


def confusion(matrix: ArrayLike, classes: Sequence[str], title: str = "") -> str:
    """A confusion matrix [C, C] of counts: rows the truth, columns the prediction.

    A cell's shade is its share of its row; the numbers are left out above 15 classes.
    Returns SVG. Raises ValueError if the matrix is not [C, C] for C = len(classes).
    """
    counts = np.asarray(matrix)
    size = len(classes)
    if counts.shape != (size, size) or not size:
        raise ValueError(
            f"{size} classes want a matrix of that size, not {counts.shape}"
        )
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [_text(name, 18) for name in classes]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        # Rectangles, not an image: sharp at every size, and see-through, so that one
        # shade serves a light and a dark page.
        for row, column in np.ndindex(size, size):
            axes.add_patch(
                _matplotlib("patches").Rectangle(
                    (column - 0.5, row - 0.5),
                    1,
                    1,
                    facecolor=(*_rgb(PALETTE[0]), 0.06 + 0.54 * share[row, column]),
                    edgecolor="none",
                )
            )
            if size <= 15:
                label = f"{counts[row, column]:,}"
                if size <= 4:
                    label += f"\n{share[row, column]:.1%}"
                axes.text(
                    column,
                    row,
                    label,
                    ha="center",
                    va="center",
                    fontsize=10 if size <= 4 else 7.5,
                )
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
        long = size > 4 or max(map(len, names)) > 12
        upright = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(size), names, **(upright if long else {}))
        axes.set_yticks(range(size), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")

    return svg(draw, title, height=3.6 if size <= 4 else 5.0)


def points(
    named: Mapping[str, tuple[float, float, float, float]],
    x: str,
    y: str,
    title: str = "",
    *,
    log: bool = False,
) -> str:
    """Things by two numbers: a point with its interval and its name.

    named: name -> (x, y, low, high), the interval of y; log: x on a logarithmic axis.
    A point is numbered, and the legend has its name. Returns SVG. Raises ValueError for
    no point and one that is not finite.
    """
    _some(named, "points")
    if not np.isfinite(list(named.values())).all():
        raise ValueError("points need finite numbers; leave the others out")

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        handles = []
        for index, (at, value, low, high) in enumerate(named.values()):
            color = PALETTE[index % len(PALETTE)]
            axes.vlines(at, low, high, color=color, linewidth=1.2, alpha=0.7)
            handles += axes.plot(
                *(at, value, MARKS[index // len(PALETTE) % len(MARKS)]),
                color=color,
                markersize=7,
            )
            axes.annotate(
                *(str(index + 1), (at, value)),
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=8,
            )
        _axes(axes, x, y, log)
        _legend(figure, handles, [f"{i} {n}" for i, n in enumerate(named, 1)])

    return svg(draw, title, height=3.6 + 0.2 * math.ceil(len(named) / 3))


def _axes(axes: Any, x: str, y: str, log: bool) -> None:
    if log:
        axes.set_xscale("log")
        # 1,000 and not 10 with a small 3, which takes mathematics to draw.
        form = _matplotlib("ticker").StrMethodFormatter("{x:,.0f}")
        axes.xaxis.set_major_formatter(form)
        axes.xaxis.set_minor_formatter(_matplotlib("ticker").NullFormatter())
    axes.set_xlabel(_text(x))
    axes.set_ylabel(_text(y))
    axes.grid(True)


def bars_with_intervals(
    names: Sequence[str],
    values: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    title: str = "",
    *,
    x: str = "",
    form: str = ".3f",
    reference: float | None = None,
) -> str:
    """Horizontal bars from zero with their intervals, the numbers under the names.

    names: K names, top to bottom; values, low, high: [K]; form: format of the numbers
    ('.1%'); reference: a dotted line (chance, a published number).
    Returns SVG. Raises ValueError if lengths differ, none is given or one is not
    finite.
    """
    centre, lower, upper = (
        np.asarray(a, dtype=np.float64) for a in (values, low, high)
    )
    if not (centre.shape == lower.shape == upper.shape == (len(names),)):
        raise ValueError(
            f"{len(names)} names, values {centre.shape}, low {lower.shape}, high "
            f"{upper.shape}: give one of each for every bar"
        )
    _some(names, "names")
    if not np.isfinite([centre, lower, upper]).all():
        raise ValueError("bars need finite values and intervals; leave the others out")

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        places = np.arange(len(names))
        axes.barh(places, centre, height=0.62, color=PALETTE[0], alpha=0.55)
        # Drawn from end to end: a percentile interval need not hold its own centre.
        axes.hlines(places, lower, upper, color=INK, linewidth=1.4)
        for ends in (lower, upper):
            axes.plot(ends, places, "|", color=INK, markersize=8, markeredgewidth=1.4)
        if reference is not None:
            axes.axvline(reference, color=INK, linestyle=":", linewidth=1.2)
        axes.axvline(0, color=INK, linewidth=0.8)
        # Under the name, not beside the bar: on a phone the bars keep their width.
        notes = [
            f"{_text(name, 32)}\n{value:{form}} [{start:{form}}, {end:{form}}]"
            for name, value, start, end in zip(names, centre, lower, upper, strict=True)
        ]
        axes.set_yticks(places, notes)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(_matplotlib("ticker").MaxNLocator(5))
        if form.endswith("%"):
            percent = _matplotlib("ticker").PercentFormatter(1)
            axes.xaxis.set_major_formatter(percent)
        axes.grid(True, axis="x")
        axes.set_xlabel(_text(x))

    return svg(draw, title, height=1.0 + 0.5 * len(names))


def reliability(curves: Mapping[str, Mapping[str, Any]], title: str = "") -> str:
    """Accuracy against confidence, with the share of examples in each bin below.

    curves: name -> what `fmjax.metrics.calibration.reliability` returns; the diagonal
    is perfect calibration, below it the model is too sure of itself.
    Returns SVG. Raises ValueError if no curve is given.
    """
    _some(curves, "curves")

    def draw(figure: Any) -> None:
        axes, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
        handles = []
        for index, curve in enumerate(curves.values()):
            color = PALETTE[index % len(PALETTE)]
            filled = [place for place, count in enumerate(curve["counts"]) if count]
            handles += axes.plot(
                [curve["confidence"][place] for place in filled],
                [curve["accuracy"][place] for place in filled],
                color=color,
                linestyle=DASHES[index % len(DASHES)],
                marker="o",
                markersize=4,
            )
            counts = np.asarray(curve["counts"])
            below.stairs(
                counts / max(counts.sum(), 1),
                curve["edges"],
                color=color,
                linewidth=1.4,
            )
        axes.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        below.set(xlabel="confidence", ylabel="examples")
        below.set_ylim(bottom=0)
        below.yaxis.set_major_formatter(_matplotlib("ticker").PercentFormatter(1))
        axes.grid(True)
        labels = [f"{name} (ECE {c['ece']:.3f})" for name, c in curves.items()]
        _legend(figure, handles, labels)

    return svg(draw, title, height=4.4)


def standalone(svg: str) -> str:
    """An inline SVG for a file of its own, which must ask for the reader's colours."""
    style = "<style>svg{color:#222}@media(prefers-color-scheme:dark){svg{color:#ddd}}"
    head, rest = svg.split(">", 1)
    return f"{head}>{style}</style>{rest}"


def svg(draw: Callable[[Any], None], title: str, height: float) -> str:
    """What `draw` draws on a matplotlib figure, in this house's style, as SVG."""
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "fmjax",
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.size": 9.5,
        "axes.titlesize": 10.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.linewidth": 0.8,
        "grid.alpha": 0.18,
        "grid.linewidth": 0.7,
        "legend.frameon": False,
    } | dict.fromkeys(
        (
            "text.color",
            "axes.edgecolor",
            "axes.labelcolor",
            "xtick.color",
            "ytick.color",
            "grid.color",
        ),
        INK,
    )
    matplotlib = _matplotlib()
    stream = io.StringIO()
    # The plain defaults, whatever a matplotlibrc says, with this house's style on top.
    with warnings.catch_warnings(), matplotlib.rc_context():
        # Only measured with matplotlib's own font; drawn with the reader's.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        figure = _matplotlib("figure").Figure(
            figsize=(WIDTH, height), layout="constrained"
        )
        draw(figure)
        if title:
            # Not wrap=True, which reads mathematics whatever parse_math says.
            figure.suptitle(textwrap.fill(_text(title), 64), fontsize=10.5)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]  # no XML prolog, no DTD: inline
    return re.sub(r' style="[^"]*"', _restyle, text)


def _restyle(match: re.Match[str]) -> str:
    style = match.group().replace(INK, "currentColor")
    return re.sub(r'font-family: [^;"]*', "font-family: system-ui, sans-serif", style)


def _matplotlib(module: str = "") -> Any:
    # Imported when used: only reports need it.
    try:
        return importlib.import_module(f"matplotlib.{module}".rstrip("."))
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "figures need matplotlib: pip install 'fmjax[experiments]' (or matplotlib)"
        ) from error


def _legend(figure: Any, handles: list[Any], labels: list[str]) -> None:
    # matplotlib drops labels that begin with an underscore; the mark has no width.
    shown = ["\u200b" + _text(label, 40) for label in labels]
    columns = 1 if max(map(len, shown)) > 24 else min(len(shown), 3)
    figure.legend(handles, shown, loc="outside lower center", ncols=columns)


def _mean(runs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    tables = [dict(zip(xs.tolist(), ys.tolist(), strict=True)) for xs, ys in runs]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    mean = [sum(table[x] for table in tables) / len(tables) for x in shared]
    # Infinity is a gap too: matplotlib would leave the axis without finite limits.
    return np.array(shared), np.array(
        [m if math.isfinite(m) else math.nan for m in mean]
    )


def _run(name: str, run: Run) -> tuple[np.ndarray, np.ndarray]:
    xs, ys = (np.asarray(part, dtype=np.float64) for part in run)
    if xs.ndim != 1 or xs.shape != ys.shape:
        raise ValueError(f"a run of {name!r} has xs {xs.shape} and ys {ys.shape}")
    return xs, np.where(np.isfinite(ys), ys, np.nan)


def _some(things: Any, what: str) -> None:
    if not len(things):
        raise ValueError(f"nothing to draw: no {what}")


def _text(text: str, length: int = 200) -> str:
    """A name for a figure: one line, not too long, nothing that XML lacks."""
    text = " ".join(legal(str(text)).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _rgb(color: str) -> tuple[float, ...]:
    return tuple(int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
