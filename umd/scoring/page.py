"""Elements of a page whose every text is escaped by construction, and a page that asks for nothing from outside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from xml.etree.ElementTree import Element, tostring

_ALLOWED: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; margin: 0 auto; padding: 1rem;
  max-width: 72rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
p.caption { color: #555; margin: 1rem 0 .4rem; }
th, td { padding: .25rem .7rem; text-align: right; vertical-align: top; border-bottom: 1px solid #ddd; }
th { vertical-align: bottom; font-weight: 600; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff; }
td.text { min-width: 9rem; overflow-wrap: anywhere; }
small { display: block; color: #555; white-space: nowrap; }
td.below { background: #fdecd9; } td.fool, th.fool { color: #555; font-weight: normal; }
td.right { color: #14612b; } td.wrong { color: #9c1c1c; }
img { max-width: 100%; height: auto; }
figure { margin: 1rem 0; } figcaption { color: #555; }
.case { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; border-top: 1px solid #bbb; padding-top: 1rem; }
.case > img { align-self: flex-start; max-width: 224px; } .case > div { flex: 1 1 20rem; min-width: 0; }
.case p.caption { margin-top: 0; }
"""

Content = str | Element


def element(tag: str, *content: Content, **attributes: str) -> Element:
    """An element with texts and elements in it; a trailing underscore of an attribute's name is left out."""
    made = Element(tag, {name.rstrip("_"): value for name, value in attributes.items()})
    last: Element | None = None
    for part in content:
        if isinstance(part, Element):
            made.append(part)
            last = part
        elif last is None:
            made.text = (made.text or "") + printable(part)
        else:
            last.tail = (last.tail or "") + printable(part)
    return made


def printable(text: str) -> str:
    """A text without the control characters that no page may hold."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def table(caption: str, head: Sequence[Element], rows: Iterable[Sequence[Element]]) -> Element:
    """A table below its caption; it scrolls by itself where the window is narrow."""
    body = [element("tr", *cells) for cells in rows]
    content = element("table", element("thead", element("tr", *head)), element("tbody", *body))
    return element("div", element("p", caption, class_="caption"), element("div", content, class_="wide"))


def items(texts: Iterable[str]) -> Element:
    """A list."""
    return element("ul", *(element("li", text) for text in texts))


def page(title: str, content: Iterable[Element]) -> str:
    """A whole page: no script runs on it, and its pictures are in it."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Element("meta", {"http-equiv": "Content-Security-Policy", "content": _ALLOWED}),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", _STYLE),
    )
    whole = element("html", head, element("body", *content), lang="en")
    return "<!doctype html>\n" + tostring(whole, encoding="unicode", method="html") + "\n"
