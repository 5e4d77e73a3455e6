"""The report: one file that needs nothing, trusts no text, and tells JSON the same."""

import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from fmjax.metrics import bootstrap, calibration
from fmjax.reporting import figures, page, svg
from tests.runs import ROOT

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "</style><style>@import url(https://evil.example/x.css);",
    "</svg></table></title><iframe src=//evil.example>",
    "&lt;b&gt; &amp; <!-- -->",
    "$\\frac{ ${x} {0} %s",
    "_under",
    "\x00\x07\x85\ud800 end",
    "\u202eright to left 模型",
)
VOID = {"meta", "img"}
PLAIN = '<svg xmlns="http://www.w3.org/2000/svg"><rect id="a"/></svg>'


class Reader(HTMLParser):
    """The page as a browser sees it: elements, their attributes, tables, plain text."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.words, self.open, self.tables = [], [], [], []
        self.feed(source)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "data":
            self.tables[-1][-1][-1] += f"<{dict(attributes)['value']}>"

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, words):
        self.words.append(words)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += words

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def png():
    from matplotlib.figure import Figure

    stream = io.BytesIO()
    Figure(figsize=(0.2, 0.2)).savefig(stream, format="png")
    return stream.getvalue()


def drawings(name="model"):
    random = np.random.default_rng(0)
    scores = random.uniform(0.01, 0.99, size=300)
    curve = calibration.reliability(
        labels=(random.uniform(size=300) < scores).astype(int),
        probabilities=np.stack([1 - scores, scores], axis=1),
    )
    runs = [(range(9 - k), random.normal(size=9 - k)) for k in range(3)]
    return [
        figures.curves({name: runs, "other": runs[:1]}, name, name, name),
        figures.confusion([[5, 1], [2, 7]], [name, "other"], name),
        figures.confusion(random.integers(9, size=(20, 20)), [name] * 20),
        figures.bars_with_intervals(
            [name, "other"], [0.5, 0.7], [0.4, 0.6], [0.6, 0.8], name, x=name
        ),
        figures.reliability({name: curve}, name),
    ]


def report(name, pictures):
    interval = bootstrap.interval([0.0, 1.0, 1.0, 0.5], seed=0, draws=50)
    columns = ["name", page.column("score", name, ".1%"), "count", "kept"]
    rows = [
        {"name": name, "score": interval, "count": np.int32(12345), "kept": True},
        {"name": "b", "score": np.float32(1 / 3), "count": None, "kept": False},
        {"name": "c", "score": -0.25, "count": 7, "kept": None},
        {"name": "d", "score": float("nan"), "count": float("-inf"), "kept": None},
    ]
    return [
        page.section(name, page.text(name, "two"), page.table(rows, columns, name)),
        page.section(name, *(page.figure(each, name) for each in pictures)),
        page.section("Code", page.code(name), page.figure(png(), name, alt=name)),
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "deep" / "report.html"
    got = page.write(
        path,
        "Title",
        report("model", drawings()),
        data={"a": np.arange(3)},
        lang="en-GB",
    )
    assert got == path
    assert sorted(os.listdir(path.parent)) == ["report.html", "report.json"]
    return path.read_text("utf-8"), json.loads(path.with_suffix(".json").read_text())


def assert_self_contained(source):
    read = Reader(source)
    tags = {tag for tag, _ in read.elements}
    foreign = {"script", "iframe", "object", "embed", "form", "base", "link", "style"}
    assert tags & foreign == {"style"}  # our own
    assert len(read.all("style")) == 1
    for _, attributes in read.elements:
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href", "xlink:href"):
                inside = ("#", "./", "data:image/png;base64,")
                assert value.startswith(inside)
            elif key not in ("alt", "aria-label"):  # words, which nothing follows
                assert not re.search(r"url\((?!#)", value or "")
    style = source[source.index("<style>") : source.index("</style>")]
    assert "@import" not in style
    assert "url(" not in style
    policy = read.all("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'")
    return read


def test_needs_nothing_from_outside(written):
    source, _ = written
    assert_self_contained(source)
    # Not even a namespace: an SVG inside HTML has none.
    assert not re.search(r"https?:|[\"'(]//|@import|src=(?!\"data:)", source)


def test_reads_as_a_document(written):
    source, _ = written
    read = Reader(source)
    assert source.startswith("<!DOCTYPE html>")
    assert read.all("html") == [{"lang": "en-GB"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in (
        read.all("meta")
    )
    assert read.all("caption")
    assert "prefers-color-scheme: dark" in source
    assert "text-align: end" in source
    assert all(entry["alt"] for entry in read.all("img"))
    drawn = read.all("svg")
    assert len(drawn) == len(drawings())
    assert all(entry["aria-label"] == "model" for entry in drawn)
    heads = [entry for entry in read.all("th") if entry.get("scope") == "col"]
    assert [entry.get("class") for entry in heads] == [None, "number", "number", None]


def test_identifiers_are_unique_and_references_meet_them(written):
    source, _ = written
    read = Reader(source)
    found = [each["id"] for _, each in read.elements if "id" in each]
    assert len(found) == len(set(found))
    wanted = set(re.findall(r"url\(#([^)]*)\)", source))
    wanted |= set(re.findall(r'href="#([^"]*)"', source))
    assert {"model", "model-2", "code"} <= wanted <= set(found)
    assert any(name.startswith("figure") for name in wanted)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_stays_text(name, tmp_path):
    sections = report(name, [PLAIN])
    path = page.write(tmp_path / "report.html", name, sections, data={name: name})
    read = assert_self_contained(path.read_text("utf-8"))
    shown = re.sub(r"[\x00\x07\x85\ud800]", "\ufffd", name)
    assert shown in "".join(read.words)
    assert read.tables[0][1][0] == shown
    assert read.all("img")[-1]["alt"] == shown
    assert {entry["aria-label"] for entry in read.all("svg")} == {shown}
    # The same structure as that of a harmless report: nothing came in.
    tame = Reader(page.to_html("T", report("model", [PLAIN]), beside="report.json"))
    assert [tag for tag, _ in read.elements] == [tag for tag, _ in tame.elements]
    saved = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert saved["title"] == name.encode("utf-8", "replace").decode()


def test_hostile_names_in_figures_stay_text():
    # Nothing is read as markup, as mathematics or as "not for the legend".
    flat = ([0, 1], [1.0, 2.0])
    curve = {"edges": [0, 1], "counts": [1], "confidence": [0.5], "accuracy": [1.0]}
    count = len(HOSTILE)
    hostile = [
        figures.curves({name: [flat] for name in HOSTILE}, HOSTILE[0], *HOSTILE[6:8]),
        figures.confusion(np.eye(count), HOSTILE, HOSTILE[6]),
        figures.bars_with_intervals(HOSTILE, *np.ones((3, count)), x=HOSTILE[6]),
        figures.reliability(dict.fromkeys(HOSTILE, curve | {"ece": 0.5})),
    ]
    read = assert_self_contained(
        page.to_html("T", [page.section("S", *(page.figure(h, "F") for h in hostile))])
    )
    assert not read.all("img") + read.all("iframe")
    words = "".join(read.words).replace("\u200b", "")
    for name in HOSTILE:
        start = " ".join(re.sub(r"[\x00\x07\x85\ud800]", "\ufffd", name).split())[:17]
        assert words.count(start) >= len(hostile)


def test_json_holds_the_numbers_of_the_page(written):
    source, saved = written
    table = saved["sections"][0]["blocks"][1]
    keys = [column["key"] for column in table["columns"]]
    assert keys == ["name", "score", "count", "kept"]
    compared = 0
    shown = Reader(source).tables[0][1:]
    for row, cells in zip(table["rows"], shown, strict=True):
        for key, cell in zip(keys, cells, strict=True):
            values = row[key]
            if isinstance(values, dict):
                values = [values["value"], values["low"], values["high"]]
            held = [json.loads(each) for each in re.findall("<(.*?)>", cell)]
            if held:
                assert held == (values if isinstance(values, list) else [values])
                compared += len(held)
    assert compared == 3 + 2 + 2
    assert shown[0][1].startswith("<0.625>62.5% [<")
    assert shown[1][1] == f"<{float(np.float32(1 / 3))}>33.3%"
    assert shown[0][2:] == ["<12345>12,345", "yes"]
    assert shown[1][2:] == ["–", "no"]
    assert shown[2][1] == "<-0.25>−25.0%"
    assert saved["data"] == {"a": [0, 1, 2]}


def test_what_is_not_finite_is_shown_and_noted(written):
    source, saved = written
    assert Reader(source).tables[0][4][1:3] == ["NaN", "−∞"]
    row = "/sections/0/blocks/1/rows/3"
    assert saved["not_finite"] == {f"{row}/score": "NaN", f"{row}/count": "-Infinity"}
    assert saved["sections"][0]["blocks"][1]["rows"][3]["score"] is None
    plain = page.to_json("t", [], data={"a/b~": [1, float("inf")], "x": np.ones(2)})
    assert plain["not_finite"] == {"/data/a~1b~0/1": "Infinity"}
    assert plain["data"] == {"a/b~": [1, None], "x": [1.0, 1.0]}


def test_deterministic_across_processes(tmp_path):
    source = "\n".join(drawings())
    assert source == "\n".join(drawings())
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_page;"
        "sys.stdout.buffer.write('\\n'.join(test_page.drawings()).encode())"
    )
    here = os.path.dirname(__file__)
    environment = os.environ | {
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": str(ROOT),
    }
    other = subprocess.run(
        [sys.executable, "-c", program, here],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert other.stdout.decode() == source
    assert not re.search(r"20\d\d-\d\d-\d\d|<metadata", source)


def test_figures_stand_alone_and_follow_the_page():
    for drawing in drawings("模型 <b>"):
        root = ElementTree.fromstring(drawing)
        assert "模型 <b>" in " ".join(root.itertext())  # text as text
        assert "currentColor" in drawing
        assert figures.INK not in drawing
        assert "#000000" not in drawing  # black would vanish on a dark page


def test_figures_leave_matplotlib_alone(monkeypatch):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plain = drawings()[0]
    assert dict(matplotlib.rcParams) == before
    # A user's own settings do not reach the report.
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30.0)
    monkeypatch.setitem(matplotlib.rcParams, "axes.labelweight", "bold")
    assert drawings()[0] == plain


def lines(svg):
    """Vertices of the drawn curves, by their width."""
    found = {}
    for entry in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        style = entry.get("style", "")
        if "clip-path" in entry.attrib and "stroke-linecap: square" in style:
            width = re.search(r"stroke-width: ([\d.]+)", style)[1]
            points = re.findall(r"[ML] ([\d.]+) ([\d.]+)", entry.get("d"))
            found.setdefault(width, []).append(np.array(points, dtype=float))
    return found


def test_curves_draw_each_seed_and_their_mean():
    runs = [
        ([0, 1, 2, 3], [4.0, 2.0, 1.0, 0.0]),
        ([0, 1, 2], [2.0, 2.0, 3.0]),  # stopped early: the mean ends here
    ]
    found = lines(figures.curves({"a": runs}, "step", "loss"))
    [mean], [first, second] = found["2"], found["0.8"][-2:]
    assert (len(first), len(second), len(mean)) == (4, 3, 3)
    np.testing.assert_allclose(mean[:, 1], (first[:3, 1] + second[:, 1]) / 2, atol=1e-3)
    np.testing.assert_allclose(mean[:, 0], first[:3, 0], atol=1e-3)


def test_points_stand_where_their_numbers_are():
    named = {"few": (1e3, 0.7, 0.6, 0.8), "some": (1e4, 0.8, 0.7, 0.9)}
    drawn = figures.points(named | {"many": (1e6, 0.8, 0.7, 0.9)}, "x", "y", log=True)
    assert {"1 few", "2 some", "3 many"} <= {
        (text.text or "").strip("\u200b")
        for text in ElementTree.fromstring(drawn).iter()
    }
    # The points, which are drawn after the axes' ticks and before the legend's marks.
    (a, high), (b, low), (c, same) = [
        (float(use.get("x", "")), float(use.get("y", "")))
        for group in ElementTree.fromstring(drawn).iter()
        if (group.get("id") or "").startswith("line2d")
        for use in group.iter("{http://www.w3.org/2000/svg}use")
    ][-6:-3]
    assert c - b == pytest.approx(2 * (b - a), rel=1e-4), "decades are equally far"
    assert high > low == same, "0.7 lies below 0.8"


def test_curves_leave_gaps():
    ys = [3.0, np.nan, 2.0, np.inf, 1.0, 1.5]
    drawing = figures.curves({"a": [(range(6), ys)]}, "step", "loss")
    [mean] = lines(drawing)["2"]
    assert len(mean) <= 4
    assert "nan" not in drawing.lower()
    figures.curves({"a": [([0, 1], [np.nan, np.nan])]}, "step", "loss")


def test_confusion_shows_counts_with_the_truth_in_rows():
    words = " ".join(
        ElementTree.fromstring(figures.confusion([[90, 10], [3, 7]], "ab")).itertext()
    ).split()
    assert [word for word in words if word.isdigit()] == ["90", "10", "3", "7"]
    assert [word for word in words if "%" in word] == [
        "90.0%",
        "10.0%",
        "30.0%",
        "70.0%",
    ]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: figures.curves({}, "x", "y"), "no series"),
        (lambda: figures.curves({"a": []}, "x", "y"), "no runs of 'a'"),
        (lambda: figures.curves({"a": [([1], [1, 2])]}, "x", "y"), "xs"),
        (lambda: figures.confusion([[1]], "ab"), "2 classes"),
        (lambda: figures.bars_with_intervals(["a"], [1, 2], [1], [1]), "1 names"),
        (lambda: figures.bars_with_intervals([], [], [], []), "no names"),
        (lambda: figures.bars_with_intervals(["a"], [np.nan], [1], [1]), "finite"),
        (lambda: figures.reliability({}), "no curves"),
        (lambda: figures.points({}, "x", "y"), "no points"),
        (lambda: figures.points({"a": (1, np.nan, 0, 1)}, "x", "y"), "finite"),
        (lambda: page.table([{"a": 1}], ["a", "b"], "T"), r"lacks \['b'\]"),
        (lambda: page.table([[1, 2]], ["a"], "T"), "2 cells in 1 columns"),
        (lambda: page.table([[1, 2]], ["a", "a"], "T"), "twice"),
        (lambda: page.table([[object()]], ["a"], "T"), "column 'a'"),
        (lambda: page.table([[1.5]], [page.column("a", form="d")], "T"), "form 'd'"),
        (lambda: page.figure(b"GIF89a", "F"), "PNG"),
        (lambda: page.write("x.htm", "T", []), "html"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("data", "message"), [({"a": {1, 2}}, "'/data/a' holds a set"), ({1: 2}, "strings")]
)
def test_json_names_what_it_cannot_hold(data, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        page.write(tmp_path / "report.html", "T", [], data=data)
    assert not list(tmp_path.iterdir())  # nothing half written


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<rect onload="alert(1)"/>',
        '<rect ONCLICK="alert(1)"/>',
        '<a href="javascript:alert(1)"><rect/></a>',
        '<image href="https://evil.example/x.png"/>',
        '<image xlink:href="data:image/svg+xml;base64,AAAA"/>',
        '<use xlink:href="other.svg#a"/>',
        '<rect style="fill: url(https://evil.example/#a)"/>',
        '<rect fill="u\\72l(https://evil.example/)"/>',
        "<foreignObject><b/></foreignObject>",
        '<g><animate attributeName="x"/></g>',
        '<h:div xmlns:h="http://www.w3.org/1999/xhtml"/>',
    ],
)
def test_svg_that_does_more_than_draw_is_refused(inside):
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/'
    )
    with pytest.raises(ValueError, match="SVG may"):
        page.figure(f'{head}xlink">{inside}</svg>', "F")


@pytest.mark.parametrize(
    "source",
    [
        "<svg",
        "<html/>",
        "",
        '<!DOCTYPE svg [<!ENTITY a "b">]><svg>&a;</svg>',
    ],
)
def test_what_is_no_svg_is_refused(source):
    with pytest.raises(ValueError, match="SVG"):
        page.figure(source, "F")


def test_plain_matplotlib_svg_is_made_safe():
    # Its style sheet, `*{...}`, would otherwise rule the page.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 2))
    figure.subplots().imshow([[0, 1], [1, 0]])
    stream = io.StringIO()
    figure.savefig(stream, format="svg")
    got = svg.inline(stream.getvalue(), prefix="p.", label='a "label"')
    assert_self_contained(page.to_html("T", [page.section("S", page.figure(got, "F"))]))
    assert "<style" not in got
    assert "xmlns" not in got
    assert "data:image/png;base64," in got
    assert 'aria-label="a &quot;label&quot;"' in got
    found = re.findall(r' id="([^"]*)"', got)
    assert found
    assert all(name.startswith("p.") for name in found)


def test_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"fmjax\[experiments\]"):
        figures.confusion([[1]], ["a"])


def test_pages_without_figures_need_no_matplotlib():
    program = "import sys, fmjax.reporting.page; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
