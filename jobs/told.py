"""What Slurm wrote into a job's own log about its end.

slurmstepd says there why it ends a job, on every release and without accounting, while squeue calls
a job that was cancelled, preempted, requeued or out of time COMPLETING and nothing else.
"""

from __future__ import annotations

import re
from typing import Literal

from jobs.rundir import RunDirectory

Told = Literal["time limit", "preemption", "requeued", "node failure", "out of memory", "cancelled"]

# The whole job only: Slurm also announces the end of the step, of which it does not say the cause.
JOB_ENDED = re.compile(r"\*\*\* JOB \S+ ON \S+ CANCELLED AT \S+(?: DUE TO ([^*]+?))? \*\*\*")
CAUSES: dict[str, Told] = {
    "TIME LIMIT": "time limit",
    "PREEMPTION": "preemption",
    "JOB REQUEUE": "requeued",
    "NODE FAILURE": "node failure",
}
NODE_FAILED = re.compile(r"srun: error: Node failure on ")
OUT_OF_MEMORY = re.compile(r"error: Detected \d+ oom.kill event")
LAST_BYTES = 1_000_000


def start_line(job: str, restart: str) -> str:
    """What a job script prints at its start, so that the attempts in one log are told apart."""
    return f"job {job} start {restart}"


def read(run: RunDirectory, job: str, restart_count: int) -> Told | None:
    """Why Slurm ended one start of a job; None if it did not, or its log is gone.

    Args:
        run: the run directory.
        job: the number that Slurm names the log after; an array's element has one of its own.
        restart_count: which start of the job.
    """
    log = run.engine_files / f"{job}_0_log.err"
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    _, _, own = text.rpartition(start_line(job, str(restart_count)) + "\n")
    return interpret(own.partition(start_line(job, str(restart_count + 1)))[0])


def interpret(text: str) -> Told | None:
    """What the log of one start says about its end."""
    # Preempted and out of time may both be told; the first one is why.
    for match in JOB_ENDED.finditer(text):
        cause = match.group(1) or ""
        # "NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS"
        if not cause:
            return "cancelled"
        known = CAUSES.get(cause.partition(",")[0])
        # A cause that a later release may give is no word of anybody's wish to end the run.
        if known:
            return known
    if NODE_FAILED.search(text):
        return "node failure"
    return "out of memory" if OUT_OF_MEMORY.search(text) else None
