"""The report as one HTML file: it holds all that it shows, loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from xml.etree.ElementTree import Element

from jobs import chart, comparison, markup, sections, summary, text
from jobs.chart import Line
from jobs.comparison import Group
from jobs.markup import Child, exact, scrolling, table, tag
from jobs.record import TOP1, TOP5, Record, text_of
from jobs.table import Column

# Whatever a name or a log might smuggle in, the browser fetches nothing and runs no script.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
# With their pictures more of them would make a heavy page.
MOST_DETAILED = 12
STYLE = Path(__file__).with_name("page.css")


def render(records: Sequence[Record], now: float) -> str:
    """The page about one run or several; `now` is when it is made, in seconds since the epoch."""
    if len(records) == 1:
        title, content = records[0].run.label, _about_one(records[0])
    else:
        title, content = f"{text.count(len(records), 'run')} compared", _about_many(records)
    made = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    footer = f"Made by launch.py report on {made}. This file holds all that it shows."
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        # Without one a browser asks the server for /favicon.ico.
        tag("link", rel="icon", href="data:,"),
        tag("style", STYLE.read_text(encoding="utf-8")),
    )
    body = tag("body", tag("main", *content), tag("footer", footer))
    return markup.write(tag("html", head, body, lang="en"))


def _about_one(record: Record) -> list[Element]:
    return [
        tag("h1", record.run.label),
        _subtitle(record),
        sections.figures(record),
        tag("h2", "Curves"),
        sections.curves(record),
        *sections.sections(record),
    ]


def _subtitle(record: Record) -> Element:
    created = text_of(record.provenance.get("created"))
    said = [
        f"started {created[:10]}" if created else "",
        f"commit {summary.commit(record)}".replace("*", " with uncommitted changes"),
        record.note,
        text_of(record.recipe.get("run.notes")) or "",
    ]
    state = sections.state_of(record)
    return tag("p", state, " ", " · ".join(filter(None, said)), class_="quiet")


def _about_many(records: Sequence[Record]) -> list[Element]:
    keys = comparison.differences(records)
    groups = comparison.group(records)
    finished = sum(each.is_finished for each in records)
    differ = (
        f"Their recipes differ in {', '.join(keys)}." if keys else "Their recipes are the same."
    )
    parts = [
        tag("h1", f"{text.count(len(records), 'run')} of {_names(records)} compared"),
        tag("p", f"{finished} finished. {differ}", class_="quiet"),
    ]
    if any(len(each.records) > 1 for each in groups):
        parts += [tag("h2", "Over seeds"), _seed_table(groups, keys)]
    costs = summary.cost_columns(records)
    parts += [
        tag("h2", "Runs"),
        _run_table(
            records,
            summary.score_columns(records, keys),
            "Scores in percent after the last evaluation and after the best one",
        ),
        tag("h2", "Time"),
        _run_table(
            records,
            [summary.label_column(records), *costs],
            "Of all attempts together; lost is GPU time after the last checkpoint of an attempt",
        ),
    ]
    parts += [tag("p", remark, class_="quiet") for remark in summary.remarks(records, groups)]
    parts += [tag("h2", "Curves"), _overlaid(groups, keys), tag("h2", "Each run")]
    parts += [_details(each, number) for number, each in enumerate(records[:MOST_DETAILED])]
    if len(records) > MOST_DETAILED:
        words = f"The first {MOST_DETAILED} only; report a run alone to see more of it."
        parts.append(tag("p", words, class_="quiet"))
    return parts


def _names(records: Sequence[Record]) -> str:
    names = list(dict.fromkeys(each.run.name for each in records))
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} names"


def _run_table(records: Sequence[Record], columns: list[Column], caption: str) -> Element:
    rows: list[list[Child]] = [
        list(cells) for cells in zip(*(c.cells for c in columns), strict=True)
    ]
    for number, (record, row) in enumerate(zip(records, rows, strict=True)):
        exactly = _exact_values(record)
        for place, column in enumerate(columns):
            if column.title in exactly:
                row[place] = exact(exactly[column.title], str(row[place]))
        if number < MOST_DETAILED:
            row[0] = tag("a", row[0], href=f"#run-{number}")
        if columns[1].title == "state":
            row[1] = sections.state_of(record)
    drawn = table([column.title for column in columns], rows, caption=caption)
    drawn.set("class", "comparison")
    return scrolling(drawn, caption)


def _exact_values(record: Record) -> dict[str, float | None]:
    return {
        "top-1": record.last(TOP1),
        "best-1": record.best(TOP1),
        "top-5": record.last(TOP5),
        "best-5": record.best(TOP5),
        "images/s": record.images_per_second,
        "wall": record.times.wall,
        "queue": record.times.queue,
        "GPU time": record.times.gpu,
        "lost": record.times.lost,
    }


def _seed_table(groups: Sequence[Group], keys: Sequence[str]) -> Element:
    columns = summary.group_columns(groups, keys)
    cells = zip(*(column.cells for column in columns), strict=True)
    drawn = table(
        [column.title for column in columns],
        cells,
        caption="Mean ± standard deviation (n - 1) of finished runs that differ in the seed only",
    )
    drawn.set("class", "comparison")
    return scrolling(drawn, "Over seeds")


def _overlaid(groups: Sequence[Group], keys: Sequence[str]) -> Element:
    curves = _colored(groups, keys)

    def lines(rows: str, key: str, *, marked: bool = False) -> list[Line]:
        return [
            Line(label, sections.points(getattr(each, rows), key), color, marked)
            for each, label, color in curves
        ]

    return tag(
        "div",
        chart.draw("Training loss", lines("training", "loss"), from_zero=True),
        chart.draw("Test loss", lines("evaluations", "loss", marked=True), from_zero=True),
        chart.draw("Test accuracy, top-1", lines("evaluations", TOP1, marked=True), unit=" %"),
        chart.draw("Learning rate", lines("training", "lr"), from_zero=True),
        class_="charts",
    )


def _colored(groups: Sequence[Group], keys: Sequence[str]) -> list[tuple[Record, str, int]]:
    """Each run with a label and a colour: its group's, or its own where there is but one group."""
    if len(groups) == 1 and len(groups[0].records) <= chart.COLORS:
        records = groups[0].records
        names = summary.short_labels(records)
        return [
            (each, f"run.seed={comparison.cell(each, 'run.seed')} ({name})", color)
            for color, (each, name) in enumerate(zip(records, names, strict=True))
        ]
    labels = [_legend(together, groups, keys) for together in groups]
    return [
        (each, label, color)
        for color, (together, label) in enumerate(zip(groups, labels, strict=True))
        for each in together.records
    ]


def _legend(together: Group, groups: Sequence[Group], keys: Sequence[str]) -> str:
    first = together.records[0]
    words = [f"{key}={comparison.cell(first, key)}" for key in comparison.shaping(keys)]
    if len({each.records[0].workers for each in groups}) > 1:
        words.append(f"{summary.gpus(first)} GPUs")
    told = ", ".join(words) or "the same recipe"
    return told + (f" ({len(together.records)} runs)" if len(together.records) > 1 else "")


def _details(record: Record, number: int) -> Element:
    return tag(
        "details",
        tag("summary", f"{record.run.label} ", sections.state_of(record)),
        # A link to something inside opens the details, one to the details themselves does not.
        tag("div", _subtitle(record), id=f"run-{number}"),
        sections.figures(record),
        tag("h2", "Curves"),
        sections.curves(record),
        *sections.sections(record),
    )
