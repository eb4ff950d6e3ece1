"""When a worker has to be gone: Slurm warns before it kills, and what it kills has not saved.

The task ends its worker a little earlier itself. The last complete checkpoint is then where the
run goes on, and there is time left to say so and to ask for the requeue.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass, replace
from datetime import datetime

from configs.cluster import Cluster
from jobs import checkpoints, controller
from jobs.rundir import RunDirectory
from jobs.stop import StopRequest

KILL_WAIT_SECONDS = 30.0
MARGIN_SECONDS = 8.0
HURRY_SECONDS = 2.0
LOOK_SECONDS = 5.0
CLOCK_SECONDS = 2.0


@dataclass(frozen=True)
class Limits:
    """What Slurm grants a start of the job; rank 0 asks for all."""

    ends_at: float | None = None
    """The time limit, in seconds since the epoch; None: there is no limit."""
    seconds: float = 0.0
    """How long the start may take from its beginning to the limit."""
    kill_wait: float = KILL_WAIT_SECONDS
    """From TERM to KILL."""


def ask(job_id: str) -> Limits:
    """The limits of the job that this task belongs to."""
    ends_at = _end_by_slurm(job_id)
    if ends_at is None:
        # The job script has worked it out where this release of Slurm does not say it.
        with contextlib.suppress(KeyError, ValueError):
            ends_at = float(os.environ["SLURM_JOB_END_TIME"])
    seconds = max(0.0, ends_at - time.time()) if ends_at else 0.0
    return Limits(ends_at, seconds, _kill_wait())


class Deadline:
    """Watches the clock for one worker."""

    def __init__(self, run: RunDirectory, limits: Limits, job_id: str | None = None) -> None:
        self._run = run
        self._limits = limits
        self._lead = self._measure_lead()
        self._looked_at = time.monotonic()
        self._job = job_id
        self._grace_ends_at: float | None = None

    def seconds_left(self) -> float | None:
        """To the time limit; None without one."""
        ends_at = self._limits.ends_at
        return None if ends_at is None else ends_at - time.time()

    def is_near(self) -> bool:
        """Whether it is time to stop because of the limit, whether or not Slurm has said so."""
        if time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._lead = self._measure_lead()
        return self._has_less_than(self._lead, if_silent=True)

    def has_passed(self, stop: StopRequest) -> bool:
        """Whether Slurm is about to kill the worker."""
        margin = min(MARGIN_SECONDS, self._lead / 2)
        if self._has_less_than(margin, if_silent=not self._is_out_of_date()):
            return True
        if stop.termed_at is None:
            return False
        kill_wait = self._limits.kill_wait
        reserve = max(2.0, kill_wait / 4)
        if time.monotonic() - stop.termed_at <= kill_wait - reserve:
            return False
        if self._grace_ends_at is None:
            self._grace_ends_at = self._ask_for_grace(patience=reserve / 2)
        return time.time() > self._grace_ends_at - margin

    def _is_out_of_date(self) -> bool:
        """Whether the limit must have moved: Slurm lets nothing run for so long after it."""
        left = self.seconds_left()
        return left is not None and left < -self._limits.kill_wait

    def _has_less_than(self, seconds: float, *, if_silent: bool) -> bool:
        """Whether so little time is left; Slurm, asked once more, has not moved the limit.

        `if_silent`: what to take for the truth where Slurm does not answer.
        """
        left = self.seconds_left()
        if left is None or left >= seconds:
            return False
        # It moves the limit of a job that was suspended, and an administrator may raise it. When
        # such a job goes on, all of its tasks ask at once, and none of them is in a hurry.
        hurry = controller.PATIENCE_IN_A_JOB_SECONDS if self._is_out_of_date() else HURRY_SECONDS
        ends_at = _seconds_of(controller.end_time(self._job, hurry) if self._job else "")
        if ends_at is None:
            return if_silent
        if ends_at < time.time() + seconds:
            return True
        self._limits = replace(self._limits, ends_at=ends_at)
        return False

    def _ask_for_grace(self, patience: float) -> float:
        """When the time of a preempted job is over that Slurm lets run for a while; 0 if not so."""
        words = controller.state_and_end(self._job, patience) if self._job else ""
        state, _, text = words.partition("|")
        ends_at = _seconds_of(text) if state == "RUNNING" else None
        # Whoever only sends a signal leaves the limit as it was, and a deaf worker need not last.
        before = self._limits.ends_at
        return ends_at if ends_at and (before is None or ends_at < before - CLOCK_SECONDS) else 0.0

    def _measure_lead(self) -> float:
        saved = checkpoints.newest(self._run)
        seconds = (saved and saved.seconds) or 0.0
        return min(lead_for(seconds), 0.15 * self._limits.seconds)


def lead_for(save_seconds: float) -> float:
    """How long before its end a worker is to stop that takes `save_seconds` to save."""
    return max(15.0, 3 * save_seconds + 15)


def stop_lead_seconds(cluster: Cluster, save_seconds: float | None = None) -> int:
    """How long before the time limit Slurm is to say so.

    Two minutes, or a seventh of a short limit; once a save has been measured, what that asks for.
    """
    longest = max(10, cluster.time_limit_seconds // 7)
    return min(longest, 120 if save_seconds is None else round(lead_for(save_seconds)))


def _end_by_slurm(job_id: str) -> float | None:
    return _seconds_of(controller.end_time(job_id))


def _seconds_of(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None  # such as NONE or Unknown


def _kill_wait() -> float:
    found = re.search(r"^KillWait\s*=\s*(\d+)", controller.configuration(), re.MULTILINE)
    return float(found.group(1)) if found else KILL_WAIT_SECONDS
