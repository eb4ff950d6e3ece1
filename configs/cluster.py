"""The section of a recipe that says where it runs; what a site sets once for all."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from configs.section import Section

TIME_LIMIT = re.compile(r"^(?:([0-9]+)-)?([0-9]{1,2}):([0-5][0-9]):([0-5][0-9])$")
ScalarOption = str | int | float | bool


class Cluster(Section):
    """Where the run goes and what it asks the cluster for."""

    engine: Literal["auto", "slurm", "local"] = Field(
        "auto", description="auto takes Slurm when its controller answers, else this machine"
    )
    nodes: int = Field(1, ge=1, description="number of nodes")
    gpus_per_node: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        1,
        description="GPUs on each node, one worker each; 'all': what this machine has (local only)",
    )
    cpu_workers: int = Field(
        1, ge=1, description="workers on each node where there are no GPUs to count"
    )
    cpus_per_gpu: int = Field(4, ge=1, description="CPU cores for each worker")
    time_limit: str = Field("04:00:00", description="of one attempt, [days-]hours:minutes:seconds")
    partition: str | None = Field(None, min_length=1, description="Slurm partition")
    account: str | None = Field(None, min_length=1, description="Slurm account to charge")
    qos: str | None = Field(None, min_length=1, description="Slurm quality of service")
    constraint: str | None = Field(None, min_length=1, description="node features to ask for")
    mem_gb: int | None = Field(
        None, ge=1, description="memory of a node in GB; null: the partition's default"
    )
    array_parallelism: int | None = Field(
        None, ge=1, description="runs of a sweep that run at the same time; null: no limit"
    )
    max_crashes: int = Field(
        3, ge=1, description="crashes of the run after which it is not started again by itself"
    )
    host_suffix: str = Field(
        "", description="what is appended to a node's name to reach it on the fast network"
    )
    interface: str | None = Field(
        None, min_length=1, description="network interface of NCCL and gloo; null: they choose"
    )
    shared: list[str] = Field(
        [],
        description="folders that every node sees, where their file system's type does not say so",
    )
    setup: list[str] = Field([], description="shell lines run on each job before the workers")
    env: dict[str, str] = Field({}, description="environment variables set for the workers")
    sbatch: dict[str, ScalarOption] = Field(
        {}, description="further sbatch options by their long names, without the dashes"
    )

    @field_validator("time_limit")
    @classmethod
    def _time_limit_is_a_duration(cls, value: str) -> str:
        match = TIME_LIMIT.fullmatch(value)
        if not match or not any(int(part or 0) for part in match.groups()):
            raise ValueError("write it as hours:minutes:seconds, like 04:00:00 or 2-12:00:00")
        return value

    @property
    def time_limit_seconds(self) -> int:
        """The time limit in seconds."""
        match = TIME_LIMIT.fullmatch(self.time_limit)
        assert match, "the validator has seen this value"
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
