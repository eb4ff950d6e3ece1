"""The parts of a report's page that are about one run."""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import Element

from jobs import chart, classes, summary
from jobs.chart import Event, Line, Point
from jobs.markup import Child, exact, scrolling, table, tag
from jobs.record import TOP1, TOP5, Record, number_of, shown

# A run that diverged may have logged any number.
LARGEST = 1e100
KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):")


def sections(record: Record) -> list[Element]:
    """Everything about one run below its headline, but for the curves."""
    return [
        *classes.about(record),
        tag("h2", "Attempts"),
        _attempts(record),
        tag("h2", "Recipe"),
        _recipe(record),
        tag("h2", "Provenance"),
        _provenance(record),
    ]


def state_of(record: Record) -> Element:
    """The state as a small label."""
    return tag("span", summary.state(record), class_=f"state {record.state}")


def figures(record: Record) -> Element:
    """The numbers that people look for first."""
    epoch = record.best("epoch")
    after = f" after epoch {epoch:.0f}" if epoch is not None else ""
    steps = summary.steps(record)
    times = record.times
    return tag(
        "dl",
        _score(record, TOP1, "Top-1", after),
        _score(record, TOP5, "Top-5", " with it"),
        _figure(
            "Images/s",
            exact(record.images_per_second, summary.rate(record.images_per_second)),
            f"on {summary.on_what(record)}",
        ),
        _figure("Wall time", exact(times.wall, summary.duration(times.wall)), steps),
        _figure(
            "GPU time",
            exact(times.gpu, summary.duration(times.gpu)),
            f"{summary.duration(times.lost)} of it lost",
        ),
        _figure("Queue time", exact(times.queue, summary.duration(times.queue)), ""),
        class_="figures",
    )


def curves(record: Record) -> Element:
    """Loss, accuracy, learning rate and throughput over the steps."""
    # The first of them need not be told.
    events = [
        Event(entry.first_step, f"attempt {entry.attempt} begins")
        for entry in record.attempts[1:]
        if entry.first_step is not None
    ]
    training, scored = record.training, record.evaluations
    charts = [
        chart.draw(
            "Loss",
            [
                Line("training", points(training, "loss"), 0),
                Line("test", points(scored, "loss"), 1, marked=True),
            ],
            from_zero=True,
            events=events,
        ),
        chart.draw(
            "Test accuracy",
            [
                Line("top-1", points(scored, TOP1), 0, marked=True),
                Line("top-5", points(scored, TOP5), 2, marked=True),
            ],
            unit=" %",
            events=events,
        ),
        chart.draw(
            "Learning rate",
            [Line("lr", points(training, "lr"), 3)],
            from_zero=True,
            events=events,
        ),
        chart.draw(
            "Throughput",
            [Line("images/s", points(training, "images_per_second"), 5)],
            from_zero=True,
            events=events,
        ),
    ]
    words = tag("p", "Dotted lines: where a further attempt began.", class_="quiet")
    return tag("div", words if events else None, tag("div", *charts, class_="charts"))


def points(rows: list[dict[str, Any]], key: str) -> list[Point]:
    """The values of `key` by step, damaged lines left out."""
    found = []
    for row in rows:
        step, value = number_of(row.get("step")), number_of(row.get(key))
        if step is not None and value is not None and abs(value) < LARGEST:
            found.append((step, value))
    return found


def _score(record: Record, key: str, title: str, after: str) -> Element:
    last, best = record.last(key), record.best(key)
    value = exact(last, "-" if last is None else f"{last:.2f} %")
    more = tag("span", "best ", exact(best, f"{best:.2f} %"), after) if best is not None else ""
    return _figure(title, value, more)


def _figure(title: str, value: Child, more: Child) -> Element:
    return tag(
        "div",
        tag("dt", title),
        tag("dd", value, class_="value"),
        tag("dd", more, class_="more") if more else None,
    )


def _attempts(record: Record) -> Element:
    if not record.attempts:
        return tag("p", record.note or "It has not started yet.", class_="quiet")
    rows: list[list[Child]] = [
        [
            str(entry.attempt),
            entry.job_id or "-",
            ", ".join(map(str, entry.nodes)),
            str(part.workers),
            entry.start.replace("T", " ").rstrip("Z"),
            summary.duration(part.waited),
            summary.duration(part.lasted),
            f"{_known(entry.first_step)} to {_known(entry.last_step)}",
            _known(entry.saved_step),
            entry.reason or record.state,
            exact(entry.gpu_seconds_lost, summary.duration(entry.gpu_seconds_lost)),
        ]
        for entry, part in zip(record.attempts, record.spans, strict=True)
    ]
    head = ["attempt", "job", "nodes", "workers", "started (UTC)", "queued", "ran", "steps"]
    head += ["saved step", "ended by", "GPU time lost"]
    caption = "Each start of the run's job, and why it ended"
    drawn = table(head, rows, caption=caption)
    drawn.set("class", "attempts")
    return scrolling(drawn, "Attempts")


def _known(value: object) -> str:
    return "-" if value is None else str(value)


def _recipe(record: Record) -> Element:
    try:
        text = record.run.config.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return tag("p", "config.yaml cannot be read.", class_="quiet")
    changed = summary.settings(record)
    lines: list[Child] = []
    section = ""
    for line in text.splitlines():
        match = KEY.match(line)
        if match:
            section = section if match["indent"] else match["key"]
        is_changed = match and f"{section}.{match['key']}" in changed
        lines += [tag("b", line) if is_changed else line, "\n"]
    words = tag("p", "In bold: what is not at its default.", class_="quiet")
    return tag("div", words, tag("pre", *lines))


def _provenance(record: Record) -> Element:
    if not record.provenance:
        return tag("p", "provenance.json is missing or damaged.", class_="quiet")
    known = dict(record.provenance)
    versions = known.pop("versions", None)
    values = {key.replace("_", " "): _words(value) for key, value in known.items()}
    if isinstance(versions, dict):
        values["versions"] = ", ".join(
            f"{name} {_words(value)}" for name, value in versions.items()
        )
    values["final weights sha256"] = _words(record.results.get("weights_sha256"))
    rows: list[list[Child]] = [[key, tag("code", value)] for key, value in values.items()]
    drawn = table(["what", "value"], rows, caption="Where the result comes from")
    drawn.set("class", "words")
    return drawn


def _words(value: object) -> str:
    return "-" if value is None else shown(value)
