"""Where a run goes: to Slurm or to this machine, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from configs.schema import Recipe
from jobs import controller

ASKED = "cluster.engine is local"


@dataclass(frozen=True)
class Engine:
    """The engine taken and the reason, for the person to read."""

    name: Literal["slurm", "local"]
    why: str
    problem: str | None = None
    """Why the engine cannot take a job now; None if it can."""


def choose(recipe: Recipe) -> Engine:
    """Settle `cluster.engine`; auto takes Slurm exactly when its controller answers."""
    asked = recipe.cluster.engine
    if asked == "local":
        return Engine("local", ASKED)
    problem = controller.unavailable()
    if asked == "slurm":
        return Engine("slurm", "cluster.engine is slurm", problem)
    if problem is None:
        return Engine("slurm", "Slurm's controller answers")
    return Engine("local", problem)
