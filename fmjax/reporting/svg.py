"""SVG that may stand inside an HTML page: drawing, and nothing that acts or refers."""

import re
from xml.etree import ElementTree

# What a drawing is made of. The rest is refused, but for these, which draw nothing: a
# style sheet in an inline SVG would rule the whole page.
DRAWING = frozenset(
    re.findall(
        r"\w+",
        "svg g defs use symbol path rect circle ellipse line polyline polygon text "
        "tspan image clipPath mask pattern marker linearGradient radialGradient stop",
    )
)
SILENT = frozenset(("style", "metadata", "title", "desc"))


def inline(svg: str, *, prefix: str, label: str = "") -> str:
    """An SVG for the inside of an HTML page: only drawing, its identifiers its own.

    svg: from this file or any other, trusted or not; prefix: set before every id and
    every reference to one, so that figures on one page do not meet; label: what it
    shows, for those who cannot see it. Namespaces, style sheets and metadata are left
    out. Raises ValueError if it is no SVG, or has scripts, links, foreign or outside
    content.
    """
    try:
        if "<!ENTITY" in svg:
            raise ValueError("an SVG may not declare entities")
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise ValueError(f"not an SVG: {error}") from error
    if _local(root.tag) != "svg":
        raise ValueError(f"not an SVG: its root is <{_local(root.tag)}>")
    root.attrib.pop("style", None)  # could lay it over the page
    root.attrib.setdefault("stroke-linejoin", "round")  # matplotlib's style sheet
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in SILENT:
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        if element.tag not in DRAWING:
            raise ValueError(f"an SVG may hold drawing alone, not <{element.tag}>")
        element.attrib = _attributes(element.tag, element.attrib, prefix)
    root.attrib |= {"role": "img"} | ({"aria-label": legal(label)} if label else {})
    return ElementTree.tostring(root, encoding="unicode").strip()


def _attributes(tag: str, attributes: dict[str, str], prefix: str) -> dict[str, str]:
    kept = {}
    for name, value in attributes.items():
        name = _local(name)
        if name in ("class", "space", "base") or name.startswith(("aria-", "data-")):
            continue  # they would speak to the page's own style and structure
        if name == "id":
            value = prefix + value
        elif name == "href" and value.startswith("#"):
            value = f"#{prefix}{value[1:]}"
        elif name == "href":
            inside = tag == "image" and value.startswith("data:image/png;base64,")
            if not inside:
                raise ValueError(f"an SVG may not refer out of itself: {value[:60]!r}")
        else:
            value = re.sub(r"url\(#", f"url(#{prefix}", value)
            # A backslash can spell url( in letters that this would not see.
            outside = re.search(
                r"url\((?!#)|image-set|@import|\\", value, re.IGNORECASE
            )
            if outside or name.lower().startswith("on") or name == "src":
                raise ValueError(f"an SVG may only draw, not {name}={value[:60]!r}")
        kept[name] = value
    return kept


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def legal(text: str) -> str:
    """The text with a mark for each character that XML may not hold."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)
