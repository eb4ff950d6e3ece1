"""How many workers a recipe means, on how many nodes: one a GPU, or on CPUs as many as it says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.schema import Recipe
from jobs.errors import Problem, RefusedError
from jobs.text import count


@dataclass(frozen=True)
class Layout:
    """The workers of a run."""

    nodes: int
    workers_per_node: int
    gpus_per_node: int

    @property
    def world_size(self) -> int:
        """Workers on all nodes together."""
        return self.nodes * self.workers_per_node

    def describe(self) -> str:
        """The layout in words."""
        what = (
            count(self.gpus_per_node, "GPU")
            if self.gpus_per_node
            else count(self.workers_per_node, "CPU worker")
        )
        return f"{count(self.nodes, 'node')} with {what}" + (" each" if self.nodes > 1 else "")


def on_slurm(recipe: Recipe) -> Layout:
    """The layout that the recipe asks Slurm for.

    Raises:
        RefusedError: the recipe leaves the number of GPUs to the machine.
    """
    cluster = recipe.cluster
    if cluster.gpus_per_node == "all":
        raise RefusedError(
            Problem(
                "cluster.gpus_per_node",
                "'all' counts the GPUs of this machine and works without Slurm only; "
                "say how many GPUs each node shall give",
            )
        )
    workers = cluster.gpus_per_node or cluster.cpu_workers
    return Layout(cluster.nodes, workers, cluster.gpus_per_node)


def on_this_machine(recipe: Recipe, gpus: int) -> Layout:
    """The layout on a machine that has `gpus` GPUs.

    Raises:
        RefusedError: the recipe asks for more than one node, or for more GPUs than there are.
    """
    cluster = recipe.cluster
    asked = cluster.gpus_per_node
    on_cpu = gpus == 0 or recipe.train.device == "cpu"
    problems = []
    if cluster.nodes > 1:
        problems.append(
            Problem("cluster.nodes", f"{cluster.nodes} nodes need Slurm; this is one machine")
        )
    if gpus == 0 and recipe.train.device == "cuda":
        problems.append(
            Problem("train.device", "cuda, but this machine shows no GPU; auto takes the CPU then")
        )
    if not on_cpu and asked != "all" and asked > gpus:
        message = f"{asked} asked for, but this machine shows {gpus}"
        problems.append(Problem("cluster.gpus_per_node", message))
    if problems:
        raise RefusedError(*problems)
    if on_cpu or asked == 0:
        return Layout(1, cluster.cpu_workers if asked in ("all", 0) else int(asked), 0)
    workers = gpus if asked == "all" else int(asked)
    return Layout(1, workers, workers)


def count_gpus(environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> int:
    """The NVIDIA GPUs that a process started here would see, found without a driver library."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    present = len(list(devices.glob("nvidia[0-9]*")))
    if visible is None:
        return present
    # CUDA takes the entries up to the first one that names no device, such as -1.
    entries = [entry.strip() for entry in visible.split(",")]
    valid = entries[: next((i for i, e in enumerate(entries) if e in ("", "-1")), len(entries))]
    return min(len(valid), present)
