"""The report for people at a terminal: a table over runs, or one run from top to bottom."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Sequence
from typing import Literal

from rich.console import Console
from rich.text import Text

from configs.schema import Recipe
from jobs import comparison, text
from jobs.comparison import Group, Score
from jobs.record import TOP1, TOP5, Record, flatten, shown
from jobs.table import Column, PipedConsole, print_table

COMMIT_LETTERS = 8


def show(records: Sequence[Record]) -> None:
    """Print the report, as wide as the terminal; in full where stdout is none."""
    # With NO_COLOR rich itself would still write in bold.
    colors: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    console = PipedConsole(color_system=colors, highlight=False)
    _print(records, console, console.width if console.is_terminal else None)


def plain(records: Sequence[Record]) -> str:
    """The report as text without colours, each table in full."""
    written = io.StringIO()
    _print(records, Console(file=written, highlight=False), None)
    return written.getvalue()


def _print(records: Sequence[Record], console: Console, width: int | None) -> None:
    if len(records) == 1:
        _print_one(records[0], console)
        return
    keys = comparison.differences(records)
    print_table([*score_columns(records, keys), *cost_columns(records)], console, width)
    groups = comparison.group(records)
    if any(len(each.records) > 1 for each in groups):
        console.print()
        print_table(group_columns(groups, keys), console, width)
    for remark in remarks(records, groups):
        console.print(Text(remark), soft_wrap=True)


def label_column(records: Sequence[Record]) -> Column:
    """What each line is about."""
    return Column("run", short_labels(records))


def score_columns(records: Sequence[Record], keys: Sequence[str]) -> list[Column]:
    """How each run did, with the recipes' `keys` that differ."""
    return [
        label_column(records),
        Column("state", [state(each) for each in records]),
        *(_column(key, records, functools.partial(comparison.cell, key=key)) for key in keys),
        _column("GPUs", records, gpus),
        _column("top-1", records, lambda each: percent(each.last(TOP1))),
        _column("best-1", records, lambda each: percent(each.best(TOP1))),
        _column("top-5", records, lambda each: percent(each.last(TOP5))),
        _column("best-5", records, lambda each: percent(each.best(TOP5))),
        _column("images/s", records, lambda each: rate(each.images_per_second)),
    ]


def cost_columns(records: Sequence[Record]) -> list[Column]:
    """What each run took, and which code it was."""
    return [
        _column("wall", records, lambda each: duration(each.times.wall)),
        _column("queue", records, lambda each: duration(each.times.queue)),
        _column("GPU time", records, lambda each: duration(each.times.gpu)),
        _column("lost", records, lambda each: duration(each.times.lost)),
        _column("attempts", records, lambda each: str(len(each.attempts))),
        _column("commit", records, commit),
    ]


def _column(title: str, records: Sequence[Record], cell: Callable[[Record], str]) -> Column:
    return Column(title, [cell(each) for each in records], str.rjust)


def group_columns(groups: Sequence[Group], keys: Sequence[str]) -> list[Column]:
    """The table over seeds: mean and standard deviation of each group's finished runs."""
    firsts = [each.records[0] for each in groups]
    keys = comparison.shaping(keys)
    return [
        Column("over seeds", [f"group {each.number}" for each in groups]),
        *(Column(key, [comparison.cell(each, key) for each in firsts], str.rjust) for key in keys),
        Column("GPUs", [gpus(each) for each in firsts], str.rjust),
        Column("n", [str(len(each.finished)) for each in groups], str.rjust),
        Column("seeds", [seeds(each) for each in groups]),
        *(
            Column(title, [spread(each.score(key)) for each in groups], str.rjust)
            for title, key in zip(
                ("top-1", "best-1", "top-5", "best-5"),
                (TOP1, f"best_{TOP1}", TOP5, f"best_{TOP5}"),
                strict=True,
            )
        ),
        Column("code", [each.code for each in groups]),
    ]


def remarks(records: Sequence[Record], groups: Sequence[Group]) -> list[str]:
    """What the tables need to be read rightly."""
    found = []
    for together in groups:
        if together.code == "differs":
            found.append(
                f"group {together.number}: its runs had different code, "
                "so more than the seed differs"
            )
        found += [
            f"group {together.number}: its runs {words}, so more than the seed differs"
            for words in together.differing_inputs
        ]
    if any(each.has_uncommitted_changes for each in records):
        found.append("* with uncommitted changes")
    return found


def short_labels(records: Sequence[Record]) -> list[str]:
    """The runs' names without the folders that all of them share."""
    labels = [each.run.label for each in records]
    while len({label.partition("/")[0] for label in labels}) == 1 and "/" in labels[0]:
        labels = [label.partition("/")[2] for label in labels]
    return labels


def state(record: Record) -> str:
    """The state, with how far an unfinished run came."""
    step, total = record.newest("step"), record.newest("steps")
    if record.is_finished or step is None or not total:
        return record.state
    return f"{record.state} {100 * step / total:.0f} %"


def steps(record: Record) -> str:
    """How far it came; empty if nothing was logged."""
    step, total = record.newest("step"), record.newest("steps")
    return f"step {step:.0f} of {total:.0f}" if step is not None and total else ""


def gpus(record: Record) -> str:
    """How many GPUs, or CPU workers; `-` while only the machine itself knows which."""
    asked = record.recipe.get("cluster.gpus_per_node")
    if record.workers is None or (record.device is None and asked == "all"):
        return "-"
    on_cpu = "cpu" in (record.device, record.recipe.get("train.device")) or asked == 0
    return f"{record.workers} CPU" if on_cpu else str(record.workers)


def percent(score: float | None) -> str:
    """A score with two decimals."""
    return "-" if score is None else f"{score:.2f}"


def spread(score: Score) -> str:
    """A mean and its standard deviation."""
    if score.mean is None:
        return "-"
    return f"{score.mean:.2f} ± {'-' if score.sd is None else f'{score.sd:.2f}'}"


def rate(value: float | None) -> str:
    """Images a second, with three digits or more."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def duration(seconds: float | None) -> str:
    """A time span; `-` if it is not known."""
    return "-" if seconds is None else text.duration(seconds)


def seeds(together: Group) -> str:
    """The seeds of the runs that count."""
    return " ".join("?" if seed is None else str(seed) for seed in together.seeds) or "-"


def commit(record: Record) -> str:
    """The commit's beginning, with a mark if the code was not just that."""
    name = record.provenance.get("commit")
    if not isinstance(name, str):
        return "-"
    return name[:COMMIT_LETTERS] + ("*" if record.has_uncommitted_changes else "")


def _print_one(record: Record, console: Console) -> None:
    rows = facts(record)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        line = Text.assemble((name.ljust(width), "bold"), "  ", text.printable(value))
        console.print(line, soft_wrap=True)


def facts(record: Record) -> list[tuple[str, str]]:
    """What there is to say about one run, each with its name."""
    epoch = record.best("epoch")
    found = [
        ("run", record.run.label),
        ("state", f"{state(record)}: {record.note}" if record.note else state(record)),
        ("notes", str(record.recipe.get("run.notes") or "")),
        ("top-1", _score(record, TOP1) + (f" after epoch {epoch:.0f}" if epoch else "")),
        ("top-5", _score(record, TOP5)),
        ("steps", steps(record) or "-"),
        ("workers", on_what(record)),
        ("images/s", rate(record.images_per_second)),
        ("wall time", duration(record.times.wall)),
        ("queue time", duration(record.times.queue)),
        ("GPU time", duration(record.times.gpu)),
        ("GPU time lost", duration(record.times.lost)),
        ("commit", commit(record).replace("*", " with uncommitted changes")),
        ("command", str(record.provenance.get("command") or "-")),
    ]
    for entry, part in zip(record.attempts, record.spans, strict=True):
        ran = f"{entry.reason or 'runs'} after {duration(part.lasted)}"
        found.append((f"attempt {entry.attempt}", f"{ran}, on {', '.join(entry.nodes)}"))
    found += [(key, shown(value)) for key, value in settings(record).items()]
    return [(name, value) for name, value in found if value]


def on_what(record: Record) -> str:
    """The workers and their device."""
    if record.workers is None:
        return "-"
    if record.device == "cpu":
        return text.count(record.workers, "CPU worker")
    if record.device:
        return f"{record.workers} x {record.device}"
    return gpus(record)


def settings(record: Record) -> dict[str, object]:
    """The keys of the recipe that are not at their defaults, but for its name and folder."""
    defaults = flatten(Recipe().model_dump())
    return {
        key: value
        for key, value in record.recipe.items()
        if key not in comparison.OWN and (key not in defaults or value != defaults[key])
    }


def _score(record: Record, key: str) -> str:
    last = record.last(key)
    return "-" if last is None else f"{last:.2f} %, best {percent(record.best(key))} %"
