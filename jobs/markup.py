"""HTML and SVG as trees, so that no text can become markup, whatever it holds."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

Child = Element | str | None


def tag(kind: str, /, *children: Child, **attributes: str | float | None) -> Element:
    """An element; `class_` and `aria_label` are written as HTML has them, None is left out."""
    names = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    element = Element(kind, {key: str(value) for key, value in names.items() if value is not None})
    for child in children:
        if isinstance(child, Element):
            element.append(child)
        elif child and len(element):
            element[-1].tail = (element[-1].tail or "") + child
        elif child:
            element.text = (element.text or "") + child
    return element


def table(head: Iterable[Child], rows: Iterable[Iterable[Child]], *, caption: str) -> Element:
    """A table whose first column names its rows."""
    body = []
    for first, *others in rows:
        cells = [tag("td", child) for child in others]
        body.append(tag("tr", tag("th", first, scope="row"), *cells))
    top = tag("tr", *(tag("th", child, scope="col") for child in head))
    return tag("table", tag("caption", caption), tag("thead", top), tag("tbody", *body))


def scrolling(element: Element, label: str) -> Element:
    """A box in which something wide can be moved sideways, also with the keyboard."""
    return tag("div", element, class_="scroll", tabindex="0", role="region", aria_label=label)


def exact(value: float | None, words: str) -> Element:
    """A number as people read it, with all its digits for programs."""
    return tag("data", words, value="" if value is None else repr(value))


def write(root: Element) -> str:
    """The document as text."""
    return (
        "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="unicode", method="html") + "\n"
    )
