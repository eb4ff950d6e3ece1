"""Whether a run may go on by itself: crashes have a budget, and attempts have to get somewhere.

Everything follows from the ledger, counted from the last attempt that a person started.
"""

from __future__ import annotations

from jobs.ledger import Attempt, Reason
from jobs.text import count

CRASHES: set[Reason] = {"crash", "out of memory", "lost"}
FINAL: set[Reason] = {"finished", "cancelled", "configuration error"}
MAX_UNFIT = 2
MAX_IDLE = 2


def objection(entries: list[Attempt], max_crashes: int) -> str | None:
    """Why no further attempt may follow these ended ones by itself; None if one may."""
    counted = _since_a_person(entries)
    reasons = [entry.reason for entry in counted]
    crashes = sum(reason in CRASHES for reason in reasons)
    if not counted:
        return None
    if reasons[-1] in FINAL:
        return {
            "finished": "the run has finished",
            "cancelled": "the run was cancelled",
            "configuration error": "the request is wrong, so that it would fail again",
        }[str(reasons[-1])]
    if reasons[-1] in CRASHES and crashes >= max_crashes:
        return f"{count(crashes, 'crash', 'crashes')} (cluster.max_crashes is {max_crashes})"
    if len(reasons) >= MAX_UNFIT and set(reasons[-MAX_UNFIT:]) == {"unfit node"}:
        return "a node was unfit a second time in a row"
    if _idle_attempts(entries, len(counted)) >= MAX_IDLE:
        step = counted[-1].saved_step
        where = f"the newest checkpoint stays that of step {step}" if step else "nothing was saved"
        return f"two attempts in a row made no progress: {where}"
    return None


def _since_a_person(entries: list[Attempt]) -> list[Attempt]:
    starts = [number for number, entry in enumerate(entries) if entry.afresh]
    return entries[starts[-1] :] if starts else entries


def _idle_attempts(entries: list[Attempt], counted: int) -> int:
    """How many of the last attempts in a row ended with no newer checkpoint than before them."""
    idle = 0
    for number in range(len(entries) - 1, len(entries) - 1 - counted, -1):
        entry = entries[number]
        before = entries[number - 1].saved_step if number else None
        # Lines of an older launcher have no saved_step to compare, nor workers.
        if entry.workers is None or (entry.saved_step or 0) > (before or 0):
            break
        # A node that was refused at the start had no chance to get anywhere; it has its own limit.
        idle += entry.reason != "unfit node"
    return idle
