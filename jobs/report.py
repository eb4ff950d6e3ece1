"""What came of runs: a table for people, csv and json for programs, html to attach and keep."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from pathlib import Path

from jobs import comparison, files, record, rundir, status
from jobs.comparison import Group
from jobs.errors import RequestError
from jobs.record import Record

FORMATS = ("table", "csv", "json", "html")


def show(texts: list[str], root: Path, wanted: str | None, output: str | None) -> int:
    """Print a report on the named runs, or on all, or write it to the file `output`.

    The format that is not asked for follows from the file's name, else it is a table.

    Raises:
        RequestError: a name fits no run, there are no runs, or the file cannot be written.
    """
    suffix = Path(output).suffix.removeprefix(".") if output else ""
    form = wanted or (suffix if suffix in FORMATS else "table")
    if form == "html" and output is None and sys.stdout.isatty():
        raise RequestError("a page is for a browser: add --output report.html")
    runs = rundir.find_many(texts, root)
    now = time.time()
    records = [record.gather(each, now) for each in status.collect(runs)]
    if form == "table" and output is None:
        from jobs import summary

        summary.show(records)
        return 0
    text = render(records, form, now)
    if output is None:
        # Bytes, or a terminal's encoding that is not UTF-8 could stop halfway.
        sys.stdout.buffer.write(text.encode())
        return 0
    target = Path(output)
    try:
        if files.is_stream(target):
            with target.open("a", encoding="utf-8") as stream:
                stream.write(text)
        else:
            files.write_whole(target.resolve(), text)
    except OSError as error:
        raise RequestError(f"--output {output}: {error.strerror}") from None
    print(f"wrote {output} ({len(text.encode()) / 1000:,.0f} kB)", file=sys.stderr)
    return 0


def render(records: list[Record], form: str, now: float) -> str:
    """The report as text that can be written as UTF-8; `now` is when it is made."""
    if form == "csv":
        text = as_csv(records)
    elif form == "json":
        text = json.dumps(as_json(records), indent=2, ensure_ascii=False) + "\n"
    elif form == "html":
        from jobs import page

        text = page.render(records, now)
    else:
        from jobs import summary

        text = summary.plain(records)
    # JSON in a damaged file may hold half a character.
    return text.encode(errors="replace").decode()


def as_csv(records: list[Record]) -> str:
    """A line a run: its values, the scores of its group, and its whole recipe."""
    groups = {
        each.run: together for together in comparison.group(records) for each in together.records
    }
    rows = [each.values() | _group_values(groups[each.run]) | each.recipe for each in records]
    keys = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(keys), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def as_json(records: list[Record]) -> dict[str, object]:
    """Everything: the runs, the groups over seeds, and the keys in which the recipes differ."""
    return {
        "runs": [record.as_json(each) for each in records],
        "groups": [each.values() for each in comparison.group(records)],
        "differences": comparison.differences(records),
    }


def _group_values(together: Group) -> dict[str, object]:
    values: dict[str, object] = {"group": together.number, "group_code": together.code}
    for key in comparison.SCORES:
        score = together.score(key)
        values |= {f"group_{key}_{name}": value for name, value in vars(score).items()}
    return values


def _plain(value: object) -> object:
    """A value as csv has it: nothing for null, JSON for what is no single value."""
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False)
    return value
