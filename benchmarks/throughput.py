"""Images a second of a training step: this project's, torchvision's reference, timm's.

    python -m benchmarks.throughput [--data-root DIR] [--resolutions 64 128 160 224]
        [--batch-sizes 16] [--data synthetic real] [--arms ours torchvision timm]
        [--output benchmarks/results/throughput.json]

ResNet-50 in one process, the same batch, precision and resolution for all. 'synthetic': one batch
stays on the device, so that the bare step is timed; 'real': images are loaded, changed and trained
on, by each in its own way. The rivals take turns in blocks of steps, each block after a warm-up; a
ratio is the median over the blocks of theirs over ours, with the extremes. A block ends when the
device has done its work. timm takes part where it is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import math
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import ours, peers, record
from benchmarks.pictures import training_images
from benchmarks.timing import Ratio, in_turn, ratio, seconds_per_call, wait_for
from configs import Recipe
from train.cache import Split
from train.roofline import images_per_second_at_roofline

PACKAGES = ("torch", "torchvision", "timm", "pillow")
# What our step's recipe has beside the sizes; 'ours' is what a run does if nothing is said.
OURS: dict[str, tuple[str, ...]] = {
    "ours": (),
    "ours, eager": ("train.cuda_graph=false",),
    "ours, compiled": ("train.compile=true",),
}
PEERS = {"torchvision": peers.torchvision_step, "timm": peers.timm_step}


class Rival:
    """One way to train, measured in blocks of steps.

    Args:
        step: takes one step.
        device: what it works on.
        block_seconds: about how long a block is; one step at least.
    """

    def __init__(
        self, step: ours.OurStep | peers.PeerStep, device: torch.device, block_seconds: float
    ) -> None:
        self.step = step
        self.device = device
        self.block_seconds = block_seconds
        self.steps = 0
        self.remark = ""

    def __call__(self) -> float:
        """Seconds of a step over a block of them; not a number where the memory is too small."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # of what the rival before does not use any more
        try:
            self.step.begin()
            for _ in range(self.step.warm_up):
                self.step()
            if not self.steps:
                once = seconds_per_call(self.step, 1, self.device, warm_up=0)
                self.steps = max(1, round(self.block_seconds / once))
            return seconds_per_call(self.step, self.steps, self.device, warm_up=0)
        except torch.OutOfMemoryError:
            self.remark = "out of memory"
            return math.nan
        finally:
            self.step.end()


@contextlib.contextmanager
def our_rivals(
    recipes: dict[str, Recipe], one_batch: bool, block: float
) -> Iterator[dict[str, Rival]]:
    """Those of OURS that `recipes` has, after their first step, which records or compiles."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name, recipe in recipes.items():
            step = stack.enter_context(ours.our_step(recipe, one_batch=one_batch))
            device = step.session.ranks.device
            found[name] = Rival(step, device, block)
            began = time.perf_counter()
            with contextlib.suppress(torch.OutOfMemoryError):  # the first block will tell
                step()
                wait_for(device)
            told = [line for line in step.said if "CUDA graph" in line]
            remarks = [f"first step {time.perf_counter() - began:.1f} s", *told]
            found[name].remark = "; ".join(remarks)
        yield found


def measure(
    data: str, resolution: int, batch_size: int, args: argparse.Namespace, images: Split
) -> dict[str, Any]:
    """All rivals at one size: milliseconds a step, images a second, ratio to ours."""
    sizes = [f"data.resolution={resolution}", "schedule.resolution=[]"]
    sizes.append(f"train.batch_size={batch_size}")
    common = [*sizes, f"train.device={args.device}", *args.set]
    recipes = {
        name: ours.make_recipe(args.config, [*common, *more], args.data_root)
        for name, more in OURS.items()
        if name in args.arms
    }
    split = images if data == "real" else None
    rows: dict[str, Any] = {}
    with our_rivals(recipes, split is None, args.block_seconds) as found:
        session = next(iter(found.values())).step.session
        setting = peers.Setting(session.recipe, session.ranks.device, session.autocast)
        for name in [name for name in PEERS if name in args.arms]:
            if name == "timm" and not peers.has_timm():
                rows[name] = {"remark": "not installed"}
                continue
            step = PEERS[name](setting, split, args.workers)
            found[name] = Rival(step, setting.device, args.block_seconds)
        seconds = in_turn(found, args.rounds)
        precision = "bf16" if isinstance(setting.autocast, torch.autocast) else "fp32"
    for name, taken in seconds.items():
        rows[name] = {"remark": found[name].remark}
        if not math.isnan(sum(taken)):
            rows[name] |= figures(taken, seconds[next(iter(seconds))], batch_size)
            rows[name] |= share_of_limit(rows[name], name, resolution, precision, setting.device)
    sizes_taken = {"data": data, "resolution": resolution, "batch_size": batch_size}
    return sizes_taken | {"precision": precision, "rivals": rows}


def figures(taken: list[float], base: list[float], batch_size: int) -> dict[str, Any]:
    """What is said of one rival, whose seconds a step are `taken`, beside those of ours."""
    median = statistics.median(taken)
    found: dict[str, Any] = {
        "milliseconds": round(1e3 * median, 3),
        "images_per_second": round(batch_size / median, 2),
    }
    if not math.isnan(sum(base)):
        found["seconds_over_ours"] = [
            round(value, 4) for value in vars(ratio(taken, base)).values()
        ]
    return found


def share_of_limit(
    row: dict[str, Any], name: str, resolution: int, precision: str, device: torch.device
) -> dict[str, float]:
    """Percent of what the memory of a known GPU allows to kernels such as these."""
    if device.type != "cuda" or precision != "bf16":
        return {}
    limit = images_per_second_at_roofline(
        "imagenet",
        resolution,
        torch.cuda.get_device_name(device),
        tier="compiled" if "compiled" in name else "eager",
    )
    if limit is None:
        return {}
    return {
        "limit_images_per_second": round(limit),
        "percent_of_limit": round(100 * row["images_per_second"] / limit, 1),
    }


def table_of(results: list[dict[str, Any]], title: str) -> Table:
    """All rows, for people."""
    columns = ("data, px x images", "who", "ms a step", "images/s", "ours is x times as fast")
    table = Table(*columns, "of the limit", title=title)
    for result in results:
        size = f"{result['data']}, {result['resolution']} x {result['batch_size']}"
        for name, row in result["rivals"].items():
            if "milliseconds" not in row:
                table.add_row(size, name, row["remark"])
                continue
            times = Ratio(*row["seconds_over_ours"]) if "seconds_over_ours" in row else "-"
            percent = row.get("percent_of_limit")
            table.add_row(
                size,
                name,
                f"{row['milliseconds']:.2f}",
                f"{row['images_per_second']:.1f}",
                str(times),
                f"{percent} %" if percent else "-",
            )
        table.add_section()
    return table


def name_of(data: str, batch_size: int, resolution: int) -> str:
    """A size, for people."""
    return f"{data}, {resolution} px, {batch_size} images"


def remarks_of(results: list[dict[str, Any]]) -> set[str]:
    """What is to be known of our steps' first calls: recorded, compiled, or eager and why."""
    return {
        f"{name}, {result['resolution']} px: {row['remark']}"
        for result in results
        for name, row in result["rivals"].items()
        if name in OURS and row["remark"]
    }


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    cores = os.cpu_count() or 1
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", default="finetune.yaml", help="recipe")
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="of the recipe")
    parser.add_argument("--data-root", type=Path, help="folder of the archive; without: digits")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[64, 128, 160, 224])
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[128, 256, 512] if on_gpu else [16]
    )
    parser.add_argument(
        "--data", nargs="+", choices=["synthetic", "real"], default=["synthetic", "real"]
    )
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=[*OURS, *PEERS],
        default=["ours", *(["ours, eager"] if on_gpu else []), *PEERS],
        help="'ours' first: the others are compared with it",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(16, cores) if on_gpu else 0,
        help="loading processes of the peers (on a CPU 0: they would use other cores than ours)",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block-seconds", type=float, default=0.5 if on_gpu else 4.0)
    parser.add_argument("--limit-s", type=float, default=math.inf, help="begin nothing after it")
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    parser.add_argument("--output", type=Path, help="JSON file to write, after each size")
    return parser


def main() -> None:
    """Measure every size, and print and write the table."""
    parser = make_parser()
    args = parser.parse_args()
    if not set(OURS).intersection(args.arms):
        parser.error(f"--arms has none of {', '.join(OURS)}: nothing to compare with")
    if ours.make_recipe(args.config, args.set, args.data_root).model.stem != "imagenet":
        parser.error(f"--config {args.config}: the peers' network has ImageNet's stem")
    began = time.monotonic()
    console = Console()
    images = training_images(args.data_root)
    results: list[dict[str, Any]] = []
    left = [
        (data, batch_size, resolution)
        for data in args.data
        for batch_size in args.batch_sizes
        for resolution in args.resolutions
    ]
    device = torch.device("cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu")
    while left and time.monotonic() - began <= args.limit_s:
        data, batch_size, resolution = left.pop(0)
        results.append(measure(data, resolution, batch_size, args, images))
        gc.collect()
        if args.output:
            record.save(
                args.output,
                "benchmarks.throughput",
                PACKAGES,
                **record.on(device),
                recipe=args.config,
                images="digits" if args.data_root is None else "archive",
                loading_processes=args.workers,
                rounds=args.rounds,
                results=results,
                not_measured=[name_of(*size) for size in left],
            )
    facts = record.on(device)
    console.print(table_of(results, f"{facts['device']}, {facts['threads']} threads"))
    for remark in sorted(remarks_of(results)):
        console.print(remark)
    if left:
        names = "; ".join(name_of(*size) for size in left)
        console.print(f"not measured, for the time was up: {names}")


if __name__ == "__main__":
    main()
