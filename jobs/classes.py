"""What the final model gets right and wrong, class by class, for a report's page."""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import Element

from jobs import files
from jobs.markup import Child, exact, scrolling, table, tag
from jobs.record import Record, number_of, text_of

# A bigger matrix cannot be read by anybody.
MOST_CLASSES = 30
# Class names beyond so many letters stand upright over their columns.
LONGEST_LEVEL = 3
BASE64 = re.compile(r"[A-Za-z0-9+/]+=*")


def about(record: Record) -> list[Element]:
    """The confusion matrix, the accuracy of each class and the worst mistakes."""
    return [*_scores(record), *_mistakes(record)]


def confusion_of(record: Record) -> tuple[list[str], list[list[int]]] | None:
    """The classes and the square matrix of counts, rows true classes; None if there is none."""
    counts, classes = record.results.get("confusion_matrix"), record.results.get("classes")
    if not isinstance(counts, list) or not isinstance(classes, list) or not classes:
        return None
    widths = [len(row) if isinstance(row, list) else 0 for row in counts]
    if widths != [len(classes)] * len(classes):
        return None
    if not all(isinstance(cell, int) for row in counts for cell in row):
        return None
    return [str(name) for name in classes], counts


def _scores(record: Record) -> list[Element]:
    heading = tag("h2", "Classes")
    confusion = confusion_of(record)
    if confusion is None:
        return [heading, tag("p", "Known when the run has finished.", class_="quiet")]
    classes, counts = confusion
    parts: list[Child] = []
    if len(classes) <= MOST_CLASSES:
        parts.append(scrolling(_matrix(classes, counts), "Confusion matrix"))
    parts.append(scrolling(_per_class(classes, counts), "Accuracy by class"))
    return [heading, tag("div", *parts, class_="side")]


def _matrix(classes: list[str], counts: list[list[int]]) -> Element:
    wrong = [count for i, row in enumerate(counts) for j, count in enumerate(row) if i != j]
    most_wrong = max(wrong, default=0)
    drawn = table(
        [tag("span", "true \\ predicted"), *(tag("span", name) for name in classes)],
        [[name, *map(str, row)] for name, row in zip(classes, counts, strict=True)],
        caption="Confusion matrix: test images by true class (rows) and predicted class (columns)",
    )
    drawn.set("class", "confusion")
    head = drawn.find("thead/tr")
    assert head is not None
    if max(map(len, classes)) > LONGEST_LEVEL:
        head.set("class", "slanted")
    for true, line in enumerate(drawn.iterfind("tbody/tr")):
        for predicted, cell in enumerate(line.iterfind("td")):
            count = counts[true][predicted]
            is_right = true == predicted
            # A mistake's share of its class is too small to be seen.
            share = count / max(sum(counts[true]) if is_right else most_wrong / 0.75, 1)
            strength = " none" if count == 0 else " strong" if share > 0.6 else ""
            cell.set("class", ("hit" if is_right else "miss") + strength)
            cell.set("style", f"--share:{100 * share:.0f}%")
    return drawn


def _per_class(classes: list[str], counts: list[list[int]]) -> Element:
    rows: list[list[Child]] = []
    for index, (name, row) in enumerate(zip(classes, counts, strict=True)):
        total = sum(row)
        percent = 100 * row[index] / total if total else None
        wrong = [(count, other) for other, count in enumerate(row) if other != index and count]
        count, other = max(wrong, key=lambda pair: pair[0], default=(0, 0))
        bar = tag("span", style=f"width:{percent or 0:.2f}%")
        rows.append(
            [
                name,
                tag("span", bar, class_="bar", aria_hidden="true"),
                exact(percent, "-" if percent is None else f"{percent:.2f} %"),
                f"{row[index]} of {total}",
                f"{classes[other]} ({count})" if count else "-",
            ]
        )
    head = ["class", "", "accuracy", "right", "most often taken for"]
    return table(head, rows, caption="Accuracy by class")


def _mistakes(record: Record) -> list[Element]:
    content = files.read_json(record.run.mistakes)
    found = content.get("mistakes") if content else None
    if not isinstance(found, list):
        return []
    heading = tag("h2", "Worst mistakes")
    items = [_mistake(each) for each in found if isinstance(each, dict)]
    if not items:
        return [heading, tag("p", "None: every test image was recognised.")]
    words = "The wrongly classified test images that the network was surest of, surest first."
    return [heading, tag("p", words, class_="quiet"), tag("ul", *items, class_="mistakes")]


def _mistake(each: dict[str, Any]) -> Element:
    true, predicted = str(each.get("true", "?")), str(each.get("predicted", "?"))
    confidence = number_of(each.get("confidence"))
    sure = "" if confidence is None else f", {100 * confidence:.1f}\u00a0%"
    png = text_of(each.get("png")) or ""
    alt = f"test image {each.get('index', '?')}: {true}, taken for {predicted}"
    image = tag("img", src=f"data:image/png;base64,{png}", alt=alt, width=96, height=96)
    words = tag("figcaption", tag("b", true), " taken for ", tag("b", predicted), sure)
    return tag("li", tag("figure", image if BASE64.fullmatch(png) else None, words))
