"""Which rank a task is, and of which attempt of which job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# The job script sets it from its first argument, which the job before has given it.
FOLLOW_UP = "RUN_FOLLOWS_ITSELF"


@dataclass(frozen=True)
class Place:
    """One rank's position, as the worker's torchrun variables will tell it."""

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    job_id: str | None
    restart_count: int
    node: str
    nodes: tuple[str, ...]
    start_key: str
    """Names this start of the job: no two starts share it, so nothing stale is ever read."""
    follow_up: bool = False
    """Whether the job was queued by the one before it, where Slurm refused to requeue that."""
    log_id: str = ""
    """The number in the name of the job's log; an element of an array has one of its own."""

    @property
    def job(self) -> str:
        """What `cancel` calls the job: its Slurm id or, without Slurm, the key of its one start."""
        return self.job_id or self.start_key


def from_slurm(environ: Mapping[str, str]) -> Place:
    """The place of the srun task that calls this, under submitit.

    Sizes come from the step, not the job: SLURM_NTASKS is missing in some releases (Slurm's
    CHANGELOG, 23.02), and dividing it by the nodes is wrong for uneven layouts.
    """
    import submitit

    job = submitit.JobEnvironment()
    restart_count = int(environ.get("SLURM_RESTART_COUNT", "0"))
    tasks_per_node = expand_tasks(environ["SLURM_STEP_TASKS_PER_NODE"])
    return Place(
        rank=job.global_rank,
        local_rank=job.local_rank,
        world_size=int(environ["SLURM_STEP_NUM_TASKS"]),
        local_world_size=tasks_per_node[job.node],
        job_id=job.job_id,
        restart_count=restart_count,
        node=environ.get("SLURMD_NODENAME", job.hostname),
        nodes=tuple(job.hostnames),
        start_key=start_key(job.job_id, restart_count),
        follow_up=environ.get(FOLLOW_UP) == "yes",
        log_id=environ["SLURM_JOB_ID"],
    )


def start_key(job_id: str, restart_count: int) -> str:
    """The key of one start of a Slurm job."""
    return f"{job_id}.{restart_count}"


def job_id_of(environ: Mapping[str, str]) -> str:
    """The id that Slurm takes a job by; an element of an array is ARRAY_INDEX."""
    if "SLURM_ARRAY_JOB_ID" in environ:
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ["SLURM_JOB_ID"]


def expand_tasks(text: str) -> list[int]:
    """Slurm's short form of tasks on each node, spelled out: `2(x3),1` is 2, 2, 2, 1."""
    counts: list[int] = []
    for count, repeat in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(repeat or 1)
    return counts
