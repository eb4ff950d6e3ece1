"""A look at the nodes without training: the start-up check, and how fast devices and links are.

    python -m train.probe --run DIR

Rank 0 writes nodes.json into DIR. Exit codes as those of `python -m train`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from configs import Recipe, RecipeError, read_resolved
from train.distributed import Ranks, process_group
from train.errors import RequestError
from train.files import whole_file
from train.health import look_around
from train.offline import refuse_downloads
from train.process import leave

REPORT = "nodes.json"
# ResNet-50's gradients are about as many numbers of four bytes.
GRADIENT_NUMBERS = 24 * 2**20
GPU_SIDE, CPU_SIDE = 8192, 1024
# bf16 keeps three digits.
TOLERANCE = 0.01


@dataclass(frozen=True)
class Row:
    """What one rank has and how fast it is.

    `memory_gb`: of the GPU or, on a CPU, of the machine. `free_gb`: where the run directory lies.
    `matrix_ms`: for one product of two square matrices of `matrix_side`. `all_reduce_gb_s`: bytes
    of the summed tensor by seconds, NCCL's algorithm bandwidth, in 10^9 bytes; None for one rank.
    """

    rank: int
    node: str
    device: str
    memory_gb: float
    free_gb: float
    matrix_side: int
    matrix_ms: float
    all_reduce_gb_s: float | None


def probe(run_dir: Path, recipe: Recipe, ranks: Ranks) -> None:
    """Look at all ranks and let rank 0 write down what they are; a collective call.

    Raises:
        OSError: rank 0 cannot write.
    """
    facts, faults, warnings = look_around(run_dir, recipe, ranks)
    is_right, row = measure(run_dir, ranks, facts[ranks.rank].node)
    rows = ranks.gather_objects(row)
    for rank, right in enumerate(ranks.gather_objects(is_right)):
        if not right:
            faults.setdefault(rank, "got a wrong product of two matrices")
    unseen = ranks.gather_objects(missing_inputs(recipe))
    faults = {rank: f"does not see {text}" for rank, text in enumerate(unseen) if text} | faults
    if ranks.is_main:
        report = {"rows": [asdict(row) for row in rows], "faults": faults, "warnings": warnings}
        with whole_file(run_dir / REPORT) as file:
            file.write(json.dumps(report, indent=1).encode())


def measure(run_dir: Path, ranks: Ranks, node: str) -> tuple[bool, Row]:
    """Whether this rank multiplies rightly, and its row of the table."""
    on_gpu = ranks.device.type == "cuda"
    side, precision = (GPU_SIDE, torch.bfloat16) if on_gpu else (CPU_SIDE, torch.float32)
    ones = torch.ones(side, side, device=ranks.device, dtype=precision)
    is_right = bool(((ones @ ones / side - 1).abs() <= TOLERANCE).all())
    matrix_seconds = time_it(lambda: ones @ ones, ranks, repeats=10)
    bandwidth = None
    if ranks.world_size > 1:
        gradients = torch.zeros(GRADIENT_NUMBERS, device=ranks.device)
        ranks.all_reduce(gradients)  # the first one makes the connections
        ranks.barrier()
        seconds = time_it(lambda: ranks.all_reduce(gradients), ranks, repeats=20 if on_gpu else 3)
        bandwidth = round(gradients.nbytes / seconds / 1e9, 3)
    if on_gpu:
        properties = torch.cuda.get_device_properties(ranks.device)
        device, memory = properties.name, properties.total_memory
    else:
        device, memory = "CPU", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return is_right, Row(
        rank=ranks.rank,
        node=node,
        device=device,
        memory_gb=round(memory / 1e9, 1),
        free_gb=round(shutil.disk_usage(run_dir).free / 1e9, 1),
        matrix_side=side,
        matrix_ms=round(matrix_seconds * 1e3, 2),
        all_reduce_gb_s=bandwidth,
    )


def time_it(work: Callable[[], object], ranks: Ranks, *, repeats: int) -> float:
    """Seconds that one `work` takes on this rank's device, by the mean of some."""
    synchronize(ranks)
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronize(ranks)
    return (time.perf_counter() - began) / repeats


def synchronize(ranks: Ranks) -> None:
    """Wait for what this rank's GPU still has to do."""
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)


def missing_inputs(recipe: Recipe) -> str:
    """The files of the recipe that this node does not see; empty if it sees all."""
    folder = Path(recipe.data.root) if recipe.data.source == "archive" else None
    paths = [folder, Path(recipe.model.weights) if recipe.model.weights else None]
    return " and ".join(str(path) for path in paths if path and not os.access(path, os.R_OK))


def main() -> int:
    """Look at this rank; the exit code says whether it came to an end."""
    parser = argparse.ArgumentParser(
        prog="python -m train.probe", description="Look at the nodes of a run without training."
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run directory")
    args = parser.parse_args()
    refuse_downloads()
    try:
        recipe = read_resolved(args.run / "config.yaml")
        with process_group(recipe.train) as ranks:
            probe(args.run, recipe, ranks)
    except (RequestError, RecipeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    leave(main())
