"""The failure of an attempt on one screen: which rank was first, why, what became of the rest."""

from __future__ import annotations

from collections import defaultdict

from jobs import ending, failure
from jobs.ending import Ending, How
from jobs.rundir import RunDirectory

WIDTH = 100
WORDS: dict[How, str] = {
    "done": "done",
    "stopped": "saved and left",
    "overdue": "killed at the deadline",
    "failed": "failed too",
    "followed": "ended after the failure, tracebacks in their logs",
    "unfit": "on an unfit node",
    "displaced": "ended because another start holds the run",
}
SHOWN_LINES = 12


def write(run: RunDirectory, attempt: int) -> str | None:
    """The digest of an attempt, or None if no rank has failed."""
    first = failure.read(run, attempt)
    if first is None:
        return None
    lines = [f"rank {first.rank} on {first.node} failed first: {first.summarize()}"]
    exception = _exception(first.last_lines)
    if exception:
        lines.append(f"  {exception[:WIDTH]}")
    lines += [f"  | {line[:WIDTH]}" for line in first.last_lines[-SHOWN_LINES:]]
    others = [each for each in ending.read_all(run, attempt) if each.rank != first.rank]
    lines += _describe_others(others)
    lines.append(f"its log: {run.rank_log(attempt, first.rank)}")
    if any(each.how in ("followed", "failed") for each in others):
        lines.append(f"the others': {run.attempt(attempt)}/rank-*.log")
    if list(run.attempt(attempt).glob("flight-recorder-*")):
        lines.append(f"NCCL's last operations: {run.attempt(attempt)}/flight-recorder-*")
    return "\n".join(lines)


def _exception(lines: list[str]) -> str | None:
    """The line that names the exception: the last one that a traceback indents no more."""
    starts = [number for number, line in enumerate(lines) if line.startswith("Traceback ")]
    if not starts:
        return None
    after = lines[starts[-1] + 1 :]
    return next((line for line in after if line and not line.startswith(" ")), None)


def _describe_others(endings: list[Ending]) -> list[str]:
    groups: dict[str, list[int]] = defaultdict(list)
    for each in endings:
        how = WORDS[each.how]
        if each.how == "failed":
            how += f", {failure.describe_exit(each.exit_code)}"
        groups[how].append(each.rank)
    return [f"{_ranks(ranks)}: {how}" for how, ranks in groups.items()]


def _ranks(ranks: list[int]) -> str:
    """Ranks in short: `ranks 0-2, 5`."""
    spans: list[list[int]] = []
    for rank in sorted(ranks):
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    texts = [str(low) if low == high else f"{low}-{high}" for low, high in spans]
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(texts)}"
