"""Why an attempt ended, from everything that was left when its last task was gone."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from jobs import failure
from jobs.controller import Now, Start
from jobs.ending import Ending
from jobs.failure import Failure
from jobs.ledger import Reason
from jobs.stop import STOP_SIGNALS
from jobs.told import Told

# Slurm may send the signal of --signal up to a minute before its time.
EARLY_SECONDS = 75.0
# How srun ends whose tasks have stopped, or died of the signal before they could handle it.
STOP_CODES = {0, 75, *(128 + number for number in STOP_SIGNALS)}
RUNNING = "RUNNING"
RECORDED: dict[str, Reason] = {
    "NODE_FAIL": "node failure",
    "PREEMPTED": "preemption",
    "REQUEUED": "requeued",
    "OUT_OF_MEMORY": "out of memory",
    "TIMEOUT": "time limit",
    "DEADLINE": "time limit",
    "CANCELLED": "cancelled",
    "FAILED": "crash",
}
CLOCK_SECONDS = 30.0


@dataclass(frozen=True)
class Evidence:
    """What is known of the end of one start of a Slurm job."""

    srun_code: int
    restart_count: int = 0
    has_results: bool = False
    is_marked: bool = False
    """`cancel` has left its marker."""
    is_refused: bool = False
    """A rank has refused the start."""
    first: Failure | None = None
    endings: list[Ending] = field(default_factory=list)
    told: Told | None = None
    now: Now | None = None
    signal_lead: float = 0.0
    """How long before the time limit Slurm was asked to say so."""

    @property
    def runs(self) -> bool:
        """Whether Slurm has left the job alone: only then are its end and its future ours."""
        if self.now:
            return self.now.state == RUNNING and self.now.restarts == self.restart_count
        return self.told not in (
            "time limit",
            "preemption",
            "requeued",
            "node failure",
            "cancelled",
        )

    @property
    def comes_back(self) -> bool:
        """Whether somebody has requeued the job already."""
        if self.now:
            return self.now.restarts > self.restart_count
        # Nobody can be asked. Slurm does so by itself in these cases, but for preemption on some
        # sites; to start a run twice would be worse than to leave it to a person.
        return self.told in ("requeued", "node failure", "preemption")


def judge(evidence: Evidence) -> Reason:
    """Why the attempt ended."""
    first = evidence.first
    if evidence.has_results:
        return "finished"
    if evidence.is_marked:
        return "cancelled"
    if evidence.is_refused or (first and first.exit_code == failure.CONFIGURATION_ERROR):
        return "configuration error"
    return _why_ended(evidence)


def _why_ended(evidence: Evidence) -> Reason:
    first, told = evidence.first, evidence.told
    if told and told != "out of memory":
        # Workers may well have failed because of it.
        return told
    if any(ending.how == "unfit" for ending in evidence.endings):
        return "unfit node"
    if told == "out of memory" or (first and first.out_of_memory):
        return "out of memory"
    # If one rank had gone before it could agree with the others, they may have failed over that.
    unready = any(ending.stopped_unready for ending in evidence.endings)
    if not unready and (first or evidence.srun_code not in STOP_CODES):
        wrong = first is None and evidence.srun_code == failure.CONFIGURATION_ERROR
        return "configuration error" if wrong else "crash"
    stopped = [ending for ending in evidence.endings if ending.how in ("stopped", "overdue")]
    if not stopped and evidence.srun_code in (0, 75):
        # Every worker says that it is done, and there are no results.
        return "crash" if evidence.endings else "lost"
    return _why_stopped(evidence, stopped)


def _why_stopped(evidence: Evidence, stopped: list[Ending]) -> Reason:
    if evidence.comes_back:
        return "requeued"
    left = [ending.seconds_left for ending in stopped if ending.seconds_left is not None]
    if not evidence.runs:
        return "time limit" if left and min(left) <= 0 else "cancelled"
    if any(ending.asked_by_clock for ending in stopped):
        return "time limit"
    # TERM before the limit is the grace that a preempted job gets; some sites give it as USR2.
    warned = any(ending.stopped_by == signal.SIGUSR2.name for ending in stopped)
    near = bool(left) and min(left) <= evidence.signal_lead + EARLY_SECONDS
    return "time limit" if warned and near else "preemption"


def judge_from_afar(told: Told | None, starts: list[Start], began: float) -> Reason:
    """Why an attempt ended whose node died with it, by the next one.

    Args:
        told: what the job's log says of that start.
        starts: what accounting has of the job.
        began: when the attempt opened, in seconds since the epoch.
    """
    before = [start for start in starts if start.began <= began + CLOCK_SECONDS]
    recorded = RECORDED.get(before[-1].state) if before else None
    return recorded or told or "lost"
