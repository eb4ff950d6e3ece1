"""The start-up check: are these nodes what the run was given? A bad one is named in seconds."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import secrets
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from configs import Recipe
from train.distributed import Ranks, gpu_uuid
from train.errors import RequestError, UnfitNodeError

FILE_PATIENCE_SECONDS = 5.0
CLOCK_TOLERANCE_SECONDS = 5.0
SUMMANDS = 2**20


@dataclass(frozen=True)
class Facts:
    """What one rank found out about itself.

    `gpu`: the UUID of its GPU, None on a CPU. `cpus`: cores that it may use, `wanted_cpus`: cores
    that it should be able to use. `trouble`, `folder`: what is wrong with its device and with the
    run directory, None for nothing.
    """

    rank: int
    node: str
    gpu: str | None
    cpus: int
    wanted_cpus: int
    clock: float
    trouble: str | None
    folder: str | None
    sum_is_right: bool


def check_nodes(run_dir: Path, recipe: Recipe, ranks: Ranks) -> tuple[bool, list[str]]:
    """Compare all ranks before any work is done. A collective call of a few seconds at most.

    Returns:
        whether all nodes are fit, which is false only on the fit ones, and what to tell people.

    Raises:
        UnfitNodeError: this rank's node is unfit.
        RequestError: no node can use the run directory, so that other nodes would not help.
    """
    facts, faults, warnings = look_around(run_dir, recipe, ranks)
    if not faults:
        return True, warnings
    unfit = {facts[rank].node for rank in faults}
    nodes = {fact.node for fact in facts}
    if unfit == nodes and all(facts[rank].folder == fault for rank, fault in faults.items()):
        rank, fault = min(faults.items())
        raise RequestError(
            f"no node is fit for this run: rank {rank} on {facts[rank].node} {fault}"
        )
    mine = facts[ranks.rank].node
    if mine in unfit:
        mine_first = min(rank for rank in faults if facts[rank].node == mine)
        raise UnfitNodeError(f"{mine} is unfit: rank {mine_first} {faults[mine_first]}")
    told = [f"{facts[rank].node} is unfit: rank {rank} {text}" for rank, text in faults.items()]
    return False, [*warnings, *told]


def look_around(
    run_dir: Path, recipe: Recipe, ranks: Ranks
) -> tuple[list[Facts], dict[int, str], list[str]]:
    """All ranks' facts, what is wrong, by rank, and what is only worth a warning."""
    facts = ranks.gather_objects(gather_facts(run_dir, recipe, ranks))
    faults, warnings = judge(facts)
    if recipe.cluster.gpus_per_node not in (0, "all") and not any(fact.gpu for fact in facts):
        warnings.append(
            f"cluster.gpus_per_node is {recipe.cluster.gpus_per_node}, but no GPU answers on any "
            "node: training on CPUs, which train.device auto allows and cuda does not"
        )
    return facts, faults, warnings


def gather_facts(run_dir: Path, recipe: Recipe, ranks: Ranks) -> Facts:
    """This rank's facts."""
    folder = look_at_folder(run_dir, ranks)
    summand = torch.full((SUMMANDS,), float(ranks.rank + 1), device=ranks.device)
    total = ranks.world_size * (ranks.world_size + 1) / 2
    sum_is_right = bool((ranks.all_reduce(summand) == total).all())
    machine_cpus = os.cpu_count() or 1
    share = max(1, machine_cpus // ranks.local_world_size)
    ranks.barrier()  # so that the clocks are read at one time
    return Facts(
        rank=ranks.rank,
        node=platform.node(),
        gpu=gpu_uuid(ranks.device),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine_cpus,
        wanted_cpus=min(recipe.cluster.cpus_per_gpu, share),
        clock=time.time(),
        trouble=ranks.trouble,
        folder=folder,
        sum_is_right=sum_is_right,
    )


def look_at_folder(run_dir: Path, ranks: Ranks) -> str | None:
    """Whether this rank can write to the run directory and sees what rank 0 writes there.

    A full disk is no fault of a node: training goes on without what cannot be written.
    """
    token = ranks.gather_objects(secrets.token_hex(4))[0]
    mine = run_dir / f".start-check-{token}-{ranks.rank}"
    mains = run_dir / f".start-check-{token}-0"
    fault, is_full = None, False
    try:
        mine.touch()
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not is_full:
            fault = f"cannot write to {run_dir} ({error.strerror})"
    main_is_full = ranks.gather_objects(is_full)[0]
    deadline = time.monotonic() + FILE_PATIENCE_SECONDS
    # By listing: a network file system remembers for long that a file was missing.
    while fault is None and not main_is_full and mains not in run_dir.iterdir():
        if time.monotonic() > deadline:
            fault = f"does not see in {run_dir} what rank 0 writes there: is it on shared storage?"
        time.sleep(0.05)
    ranks.barrier()
    with contextlib.suppress(OSError):
        mine.unlink(missing_ok=True)
    return fault


def judge(facts: list[Facts]) -> tuple[dict[int, str], list[str]]:
    """What is wrong, by rank, and what is only worth a warning."""
    faults: dict[int, str] = {}
    warnings = []
    gpus = Counter(fact.gpu for fact in facts if fact.gpu)
    for fact in facts:
        if fact.trouble:
            faults[fact.rank] = fact.trouble
        elif fact.folder:
            faults[fact.rank] = fact.folder
        elif not fact.sum_is_right:
            faults[fact.rank] = "got a wrong sum from an all-reduce over all workers"
        elif gpus and fact.gpu is None:
            faults[fact.rank] = "has no GPU that answers, while others have one"
        elif fact.gpu and gpus[fact.gpu] > 1:
            faults[fact.rank] = f"shares the GPU {fact.gpu} with another worker"
    bound = {
        f.rank: f"may use {f.cpus} of {f.wanted_cpus} CPUs" for f in facts if f.cpus < f.wanted_cpus
    }
    if {facts[rank].node for rank in bound} == {fact.node for fact in facts}:
        # Everywhere the same: the way it was started, not a node; slow, but right.
        warnings.append(f"every worker {min(bound.items())[1]}: training will be slow")
    else:
        faults = bound | faults
    skew = max(fact.clock for fact in facts) - min(fact.clock for fact in facts)
    if skew > CLOCK_TOLERANCE_SECONDS:
        latest = max(facts, key=lambda fact: fact.clock)
        warnings.append(
            f"the nodes' clocks differ by {skew:.0f} s ({latest.node} is ahead): times in logs and "
            "of files cannot be compared"
        )
    return faults, warnings
