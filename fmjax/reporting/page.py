"""A report that is one HTML file, and the same numbers as JSON beside it.

    page.write(
        'runs/x/report.html',
        'Sentiment',
        [
            page.section(
                'Results',
                page.text('Three seeds each.'),
                page.table(rows, ['model', page.column('f1', form='.3f')], 'Test'),
                page.figure(figures.confusion(matrix, classes), 'Where it errs'),
            )
        ],
        data={'config': config},
    )

No network, no script, no font: the file opens offline anywhere, and its content policy
forbids the rest. Every text is hostile until escaped, a figure's too. Blocks are plain
values; only `write` touches the disk.
"""

import base64
import html
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from fmjax.reporting.svg import inline


class Block(NamedTuple):
    """What `text`, `code`, `table` and `figure` return.

    record: the block in the JSON file; render(n): its HTML as the n-th block of the
    page, n being what keeps identifiers apart.
    """

    record: dict[str, Any]
    render: Callable[[int], str]


class Section(NamedTuple):
    """A heading with its blocks."""

    heading: str
    blocks: tuple[Block, ...]


class Column(NamedTuple):
    """A table's column: the key in the rows, its heading, the format of its numbers."""

    key: str
    label: str
    form: str


def section(heading: str, *blocks: Block) -> Section:
    """A part of the report, with an anchor and a line in the table of contents."""
    return Section(heading, blocks)


def text(*paragraphs: str) -> Block:
    """Plain paragraphs; no markup is read in them."""
    body = "".join(f"<p>{_escape(paragraph)}</p>" for paragraph in paragraphs)
    return Block({"kind": "text", "paragraphs": list(paragraphs)}, lambda _: body)


def code(content: str) -> Block:
    """Commands or output, in a fixed-width font and just as given."""
    body = f'<pre tabindex="0"><code>{_escape(content)}</code></pre>'
    return Block({"kind": "code", "code": content}, lambda _: body)


def column(key: str, label: str = "", form: str = "") -> Column:
    """key: in the rows; label: the heading, else the key; form: as in format()."""
    return Column(key, label or key, form)


def table(
    rows: Sequence[Mapping[str, Any] | Sequence[Any]],
    columns: Sequence[Column | str],
    caption: str,
) -> Block:
    """A table with a caption, its numbers aligned to the right.

    rows: mappings by column key, or sequences in column order. A cell is a string, a
    number, a bool, None (shown as a dash) or an interval, a mapping with value, low and
    high as from `fmjax.metrics.bootstrap`. The HTML shows numbers in the column's form
    and holds them in full; the JSON holds the cells, an interval with all its keys.
    Raises ValueError for a row that lacks a column, a cell of another kind, a number
    that the form does not fit.
    """
    heads = [head if isinstance(head, Column) else column(head) for head in columns]
    if len({head.key for head in heads}) < len(heads):
        raise ValueError(f"table {caption!r} has a column twice: {columns}")
    cells = [_cells(row, heads, caption) for row in rows]
    numeric = [_numeric([row[head.key] for row in cells]) for head in heads]

    def classed(tag: str, right: bool, content: str, scope: str = "") -> str:
        number = ' class="number"' if right else ""
        return f"<{tag}{scope}{number}>{content}</{tag}>"

    lines = []
    for row in cells:
        line = ""
        for place, (head, right) in enumerate(zip(heads, numeric, strict=True)):
            first = place == 0 and not right
            tag, scope = ("th", ' scope="row"') if first else ("td", "")
            line += classed(tag, right, _cell(row[head.key], head, caption), scope)
        lines.append(f"<tr>{line}</tr>")
    top = "".join(
        classed("th", right, _escape(head.label), ' scope="col"')
        for head, right in zip(heads, numeric, strict=True)
    )
    label = _escape(caption)
    body = (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f"<table><caption>{label}</caption><thead><tr>{top}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
    record = {
        "kind": "table",
        "caption": caption,
        "columns": [head._asdict() for head in heads],
        "rows": cells,
    }
    return Block(record, lambda _: body)


def figure(
    image: str | bytes, caption: str, *, alt: str = "", data: Any = None
) -> Block:
    """A drawing with a caption.

    image: an SVG string (see `fmjax.reporting.figures`), or the bytes of a PNG; alt:
    what it shows, for those who cannot see it, by default the caption; data: its
    numbers, for the JSON.
    Raises ValueError for anything else, and for an SVG with more than drawing in it:
    scripts, links, foreign content, references out of itself.
    """
    spoken = _escape(alt or caption)
    tail = f"<figcaption>{_escape(caption)}</figcaption></figure>"
    record = {"kind": "figure", "caption": caption, "alt": alt or caption, "data": data}
    if isinstance(image, bytes):
        if not image.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError(f"figure {caption!r}: bytes must be those of a PNG file")
        source = f"data:image/png;base64,{base64.b64encode(image).decode()}"
        body = f'<figure><img alt="{spoken}" src="{source}">{tail}'
        return Block(record, lambda _: body)
    inline(image, prefix="")  # refused here, where the caller can be seen

    def drawn(number: int) -> str:
        drawing = inline(image, prefix=f"figure{number}.", label=alt or caption)
        return f"<figure>{drawing}{tail}"

    return Block(record, drawn)


def to_html(
    title: str, sections: Sequence[Section], *, lang: str = "en", beside: str = ""
) -> str:
    """The HTML of a report, a pure function; beside: the JSON file to point to."""
    entries, parts, number = [], [], 0
    for (heading, blocks), anchor in zip(sections, _anchors(sections), strict=True):
        name = _escape(heading)
        entries.append(f'<li><a href="#{anchor}">{name}</a></li>')
        body = ""
        for block in blocks:
            number += 1
            body += block.render(number) + "\n"
        parts.append(
            f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{name} '
            f'<a class="anchor" href="#{anchor}" aria-hidden="true" tabindex="-1">#</a>'
            f"</h2>\n{body}</section>"
        )
    # './' keeps a colon in the name from being read as a scheme.
    numbers = (
        f'<footer>The same numbers as JSON: <a href="./{quote(beside)}">'
        f"{_escape(beside)}</a></footer>"
        if beside
        else ""
    )
    return (
        f'<!DOCTYPE html>\n<html lang="{_escape(lang)}">\n<head>\n'
        '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{_escape(title)}</h1></header>\n"
        f'<nav aria-label="Contents"><ol>{"".join(entries)}</ol></nav>\n'
        f"<main>\n{chr(10).join(parts)}\n</main>\n{numbers}\n</body>\n</html>\n"
    )


def to_json(
    title: str, sections: Sequence[Section], *, data: Any = None
) -> dict[str, Any]:
    """The report as JSON values, a pure function.

    NaN and infinity, which JSON lacks, become null, and `not_finite` maps the place of
    each, a JSON Pointer (RFC 6901) as '/sections/0/blocks/1/rows/2/f1', to 'NaN',
    'Infinity' or '-Infinity'.
    Raises TypeError, naming the place, for what JSON cannot hold.
    """
    lost: dict[str, str] = {}
    tree = {
        "title": title,
        "sections": [
            {
                "heading": part.heading,
                "anchor": anchor,
                "blocks": [block.record for block in part.blocks],
            }
            for part, anchor in zip(sections, _anchors(sections), strict=True)
        ],
        "data": data,
    }
    return _plain(tree, "", lost) | {"not_finite": lost}


def write(
    path: str | os.PathLike[str],
    title: str,
    sections: Sequence[Section],
    *,
    data: Any = None,
    lang: str = "en",
) -> Path:
    """Write the report to `path` (.html) and its numbers to the same name in .json.

    data: what else belongs with the numbers (config, versions, command), for the JSON
    alone; lang: the language of the texts (BCP 47). Folders are made; each file is
    replaced whole or not at all. Returns the path of the HTML file.
    Raises ValueError if path is not .html, TypeError for what JSON cannot hold.
    """
    page = Path(path)
    if page.suffix != ".html":
        raise ValueError(f"a report is an .html file, not {page.name!r}")
    beside = page.with_suffix(".json")
    numbers = json.dumps(
        to_json(title, sections, data=data),
        indent=1,
        ensure_ascii=False,
        allow_nan=False,
    )
    body = to_html(title, sections, lang=lang, beside=beside.name)
    page.parent.mkdir(parents=True, exist_ok=True)
    for target, content in ((beside, numbers + "\n"), (page, body)):
        part = target.with_name(target.name + ".part")
        part.write_bytes(content.encode("utf-8", "replace"))
        part.replace(target)
    return page


def _cells(row: Any, heads: list[Column], caption: str) -> dict[str, Any]:
    if isinstance(row, Mapping):
        missing = [head.key for head in heads if head.key not in row]
        if missing:
            raise ValueError(
                f"table {caption!r}: a row lacks {missing}; it has {list(row)} "
                "(None shows a dash)"
            )
        return {head.key: _scalar(row[head.key]) for head in heads}
    if len(row) != len(heads):
        raise ValueError(f"table {caption!r}: {len(row)} cells in {len(heads)} columns")
    return {head.key: _scalar(cell) for head, cell in zip(heads, row, strict=True)}


def _scalar(value: Any) -> Any:
    """A numpy or JAX scalar as the Python number it holds; all else as it is."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _numeric(cells: list[Any]) -> bool:
    kinds = [cell for cell in cells if cell is not None]
    return bool(kinds) and all(
        isinstance(cell, int | float | Mapping) and not isinstance(cell, bool)
        for cell in kinds
    )


def _cell(value: Any, head: Column, caption: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return _escape(value)
    if isinstance(value, int | float):
        return _number(value, head, caption)
    if isinstance(value, Mapping) and {"value", "low", "high"} <= set(value):
        centre, low, high = (
            _number(_scalar(value[key]), head, caption)
            for key in ("value", "low", "high")
        )
        return f'{centre} <span class="interval">[{low}, {high}]</span>'
    raise ValueError(
        f"table {caption!r}, column {head.key!r}: a cell is a string, a number, a "
        f"bool, None or an interval (value, low, high), not {value!r}"
    )


def _number(value: Any, head: Column, caption: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    form = head.form or (",d" if isinstance(value, int) else ".4g")
    try:
        shown = format(value, form)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"table {caption!r}, column {head.key!r}: {value!r} does not fit the form "
            f"{form!r}"
        ) from error
    shown = _escape(shown.replace("-", "−"))
    return f'<data value="{value!r}">{shown}</data>'


def _anchors(sections: Sequence[Section]) -> list[str]:
    """One identifier a section, made of its heading's letters, no two alike."""
    anchors: list[str] = []
    for heading, _ in sections:
        stem = re.sub(r"[\W_]+", "-", heading.lower()).strip("-") or "section"
        anchor, count = stem, 1
        while anchor in anchors:
            count += 1
            anchor = f"{stem}-{count}"
        anchors.append(anchor)
    return anchors


def _plain(value: Any, place: str, lost: dict[str, str]) -> Any:
    """JSON values only; what is not finite goes to `lost` under its place."""
    value = _scalar(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        lost[place] = "NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity"
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise TypeError(
                f"keys at {place or 'the top'!r} must be strings: {wrong[:3]}"
            )
        return {
            key: _plain(item, f"{place}/{_pointed(key)}", lost)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | np.ndarray) or hasattr(value, "tolist"):
        items = value if isinstance(value, list | tuple) else value.tolist()
        return [_plain(v, f"{place}/{i}", lost) for i, v in enumerate(items)]
    raise TypeError(
        f"{place!r} holds a {type(value).__name__}, which JSON cannot; "
        "give numbers, strings, lists and mappings"
    )


def _pointed(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _escape(value: str) -> str:
    """Text for HTML, in an element or a quoted attribute; control characters marked."""
    value = re.sub(
        r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", value
    )
    return html.escape(value)


POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #59636e;
  --line: #d5dae0; --link: #0a5ea8; --shade: #f4f6f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --paper: #14181c;
  --soft: #9aa5b1; --line: #343c45; --link: #7cb8ee; --shade: #1d2329; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem 1.25rem 3rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 1rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
p { max-width: 42rem; white-space: pre-line; }
a { color: var(--link); }
.anchor { color: var(--soft); text-decoration: none; font-weight: normal; opacity: 0; }
h2:hover .anchor { opacity: 1; }
nav ol { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap;
  gap: .25rem 1.25rem; }
.scroll, pre { overflow-x: auto; margin: 1.25rem 0; }
pre { padding: .75rem 1rem; background: var(--shade); border-radius: .4rem;
  font: .875rem/1.5 ui-monospace, monospace; }
table { border-collapse: collapse; font-size: .94rem; }
caption { text-align: start; color: var(--soft); padding-bottom: .4rem; }
th, td { padding: .35rem .9rem .35rem 0; text-align: start; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
tbody th { font-weight: normal; }
td:not(.number), tbody th { min-width: 6rem; max-width: 28rem; }
.number { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
thead .number { white-space: normal; }
th:last-child, td:last-child { padding-right: 0; }
.interval, footer, figcaption { color: var(--soft); }
figure { margin: 1.5rem 0; }
figure svg, figure img { display: block; max-width: 100%; height: auto; }
figcaption { font-size: .94rem; margin-top: .4rem; }
footer { margin-top: 3rem; padding-top: .75rem; border-top: 1px solid var(--line); }
@media print { body { max-width: none; } nav { display: none; }
  section, figure, tr { break-inside: avoid; } }
"""
