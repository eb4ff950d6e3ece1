"""Checks before anything is queued or made: what would certainly fail is refused here."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from configs.schema import ARCHIVE_NAME, ARCHIVE_URL, Cluster, Recipe
from jobs.errors import Problem
from jobs.layout import Layout


def check_inputs(recipe: Recipe) -> list[Problem]:
    """Problems with the files that the run reads and the folder that it writes."""
    problems = []
    if recipe.data.source == "digits":
        if importlib.util.find_spec("sklearn") is None:
            remedy = "which is not installed: pip install scikit-learn"
            problems.append(Problem("data.source", f"digits come with scikit-learn, {remedy}"))
    else:
        archive = Path(recipe.data.root) / ARCHIVE_NAME
        if not archive.is_file():
            remedy = f"download {ARCHIVE_URL} and put it there, unchanged"
            problems.append(Problem("data.root", f"{archive} is missing; {remedy}"))
        elif not os.access(archive, os.R_OK):
            problems.append(Problem("data.root", f"{archive} cannot be read by you"))
    if recipe.model.weights:
        weights = Path(recipe.model.weights)
        if not weights.is_file():
            problems.append(
                Problem(
                    "model.weights",
                    f"{weights} is missing; put the checkpoint there or name another",
                )
            )
        elif not os.access(weights, os.R_OK):
            problems.append(Problem("model.weights", f"{weights} cannot be read by you"))
    problems += _check_root(Path(recipe.run.root))
    return problems


def check_shares(recipe: Recipe, layout: Layout) -> list[Problem]:
    """Problems with dividing a batch among the workers, with the nearest sizes that divide."""
    batch, workers = recipe.train.batch_size, layout.world_size
    if batch % workers:
        sizes = _nearest(batch, batch + workers, lambda size: size % workers == 0)
        message = f"{batch} images cannot be shared evenly by {workers} workers; {sizes}"
        return [Problem("train.batch_size", message)]
    share, micro = batch // workers, recipe.train.micro_batch_size
    if micro and share % micro:
        sizes = _nearest(micro, share, lambda size: share % size == 0)
        message = f"{micro} does not divide a worker's share of {share} images a step; {sizes}"
        return [Problem("train.micro_batch_size", message)]
    if min(share, micro or share) < 2:
        key = "train.micro_batch_size" if micro == 1 else "train.batch_size"
        message = "batch normalisation needs two images at a time or more on each worker"
        return [Problem(key, message)]
    return []


def find_culprit(recipe: Recipe, accepts: Callable[[Recipe], bool]) -> str | None:
    """The key of a recipe that Slurm refuses without which Slurm would accept it.

    Slurm often says no more than "Requested node configuration is not available". So each key that
    asks for something is tried at its most modest value, the others as they are: the first that
    makes Slurm accept is the cause, whatever the words and the release. None: no single key is.
    """
    for key, cluster in _more_modest(recipe.cluster):
        if accepts(recipe.model_copy(update={"cluster": cluster})):
            return f"cluster.{key}"
    return None


def _more_modest(cluster: Cluster) -> Iterator[tuple[str, Cluster]]:
    # Fewer GPUs also mean fewer tasks, cores and memory, so the keys those follow from come first;
    # another partition may have anything, so it comes last.
    modest: dict[str, Any] = {
        "time_limit": "00:01:00",
        "mem_gb": None,
        "cpus_per_gpu": 1,
        "cpu_workers": 1,
        "gpus_per_node": 0,
        "nodes": 1,
        "constraint": None,
        "qos": None,
        "account": None,
        "partition": None,
    }
    for key, value in modest.items():
        if getattr(cluster, key) != value:
            yield key, cluster.model_copy(update={key: value})
    for option in cluster.sbatch:
        others = {name: value for name, value in cluster.sbatch.items() if name != option}
        yield f"sbatch.{option}", cluster.model_copy(update={"sbatch": others})


def _check_root(root: Path) -> list[Problem]:
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    if "%" in str(root):
        return [Problem("run.root", f"{root}: Slurm and submitit give % a meaning of their own")]
    if not existing.is_dir():
        return [Problem("run.root", f"{existing} is not a folder")]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [Problem("run.root", f"{existing} cannot be written by you")]
    return []


def _nearest(size: int, largest: int, fits: Callable[[int], bool]) -> str:
    below = next((n for n in range(size - 1, 0, -1) if fits(n)), None)
    above = next((n for n in range(size + 1, largest + 1) if fits(n)), None)
    return "the nearest that can: " + " and ".join(str(n) for n in (below, above) if n)
