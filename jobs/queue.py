"""A job of the queue as squeue or, where that is no help, scontrol describes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# The folder comes last, for it alone may hold the character that separates.
FORMAT = "%i|%T|%e|%S|%r|%Z"
# A value, the folder's for one, may hold blanks and equals signs.
RECORD = re.compile(r"(\w+)=(.*?)(?= [A-Z][\w/:]*=|$)")


@dataclass(frozen=True)
class Job:
    """One job, or one element of an array, whose id is then ARRAY_INDEX.

    `ends_at` and `starts_at`: of a running job its time limit and its start, of a waiting one what
    Slurm expects, in seconds since the epoch; None where it does not say.
    """

    job_id: str
    state: str
    reason: str
    work_dir: str
    ends_at: float | None = None
    starts_at: float | None = None

    @property
    def index(self) -> int | None:
        """Which element of its array it is."""
        _, _, index = self.job_id.partition("_")
        return int(index) if index.isdecimal() else None


def parse_squeue(text: str) -> list[Job]:
    """The jobs in what `squeue --array --format=FORMAT` prints, times as seconds (%s)."""
    rows = (line.split("|", 5) for line in text.splitlines())
    return [
        Job(job, state, reason, folder, _seconds(ends), _seconds(starts))
        for job, state, ends, starts, reason, folder in (row for row in rows if len(row) == 6)
    ]


def parse_scontrol(text: str) -> list[Job]:
    """The jobs in what `scontrol --oneliner show job` prints, times as seconds (%s)."""
    records = (dict(RECORD.findall(line)) for line in text.splitlines())
    return [
        Job(
            job_id=job,
            state=record.get("JobState", ""),
            reason=record.get("Reason", ""),
            work_dir=record.get("WorkDir", ""),
            ends_at=_seconds(record.get("EndTime", "")),
            starts_at=_seconds(record.get("StartTime", "")),
        )
        for record in records
        for job in _ids(record)
    ]


def _ids(record: dict[str, str]) -> Iterator[str]:
    """One id for each job of a record: elements of an array that wait share one."""
    if "JobId" not in record:
        return
    if "ArrayTaskId" not in record:
        yield record["JobId"]
        return
    for part in record["ArrayTaskId"].partition("%")[0].split(","):
        span = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if span:
            first, last, stride = int(span[1]), int(span[2] or span[1]), int(span[3] or 1)
            for index in range(first, last + 1, stride):
                yield f"{record['ArrayJobId']}_{index}"


def _seconds(text: str) -> float | None:
    """A time that Slurm printed as `%s`; it says N/A, NONE or Unknown where it knows none."""
    return float(text) if text.isdecimal() else None
