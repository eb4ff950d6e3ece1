"""What an image costs a core on its way into the network: batched here, one by one with Pillow.

    python -m benchmarks.data_path [--data-root DIR] [--resolutions 32 64 128 224] [--workers 1]
        [--output benchmarks/results/data_path.json]

Both cut 32 px out of an image padded by 4, mirror it by chance, resize it bilinearly, and end with
one tensor for the whole batch. Two stages are timed apart, from the data set on each time: 'uint8'
ends with the resized pixels, which is as far as a processor needs to come where a GPU does the
rest; 'float32' ends with what the network takes, normalised. Pillow's path is torchvision's
transforms in a torch DataLoader with its collation, without loading processes (what it costs one
core) and with some (what they deliver together, which is not a figure per core). One thread, in
turn, best and median.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms

from benchmarks import ours, record
from benchmarks.pictures import Pictures
from benchmarks.timing import in_turn, ratio, seconds_per_call
from configs.schema import Data
from train.batches import TrainBatches
from train.cache import Split
from train.images import resize

CPU = torch.device("cpu")
STAGES = ("uint8", "float32")


class Batched:
    """This project's path: the next batch of a run at each call."""

    def __init__(self, batches: TrainBatches, resolution: int, stage: str) -> None:
        self.batches = batches
        self.resolution = resolution
        self.stage = stage
        self.step = 0

    def __call__(self) -> Tensor:
        """uint8 or float32 (B, 3, resolution, resolution)."""
        self.step += 1
        draw = self.batches.share(self.step)
        if self.stage == "float32":
            return self.batches.render(draw, self.resolution)[0]
        images = self.batches.view(draw.indices, draw.offsets, draw.flips)
        return resize(images.permute(0, 3, 1, 2), self.resolution)


def loader(
    split: Split,
    resolution: int,
    batch_size: int,
    stage: str,
    workers: int,
    *,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Torchvision's transforms on Pillow images, and torch's collation."""
    data = Data()
    steps: list[Callable[..., Any]] = [
        transforms.RandomCrop(32, padding=data.crop_padding),
        transforms.RandomHorizontalFlip(),
    ]
    if resolution != 32:
        steps.append(transforms.Resize((resolution, resolution)))
    if stage == "uint8":
        steps.append(transforms.PILToTensor())
    else:
        mean, std = ([value / 255 for value in values] for values in (data.mean, data.std))
        steps += [transforms.ToTensor(), transforms.Normalize(mean, std)]
    pictures = Pictures(split, transforms.Compose(steps))
    return DataLoader(
        pictures,
        batch_size=batch_size,
        sampler=RandomSampler(pictures),
        num_workers=workers,
        pin_memory=pin_memory,
        drop_last=True,
    )


def endless(batches: DataLoader[Any]) -> Iterator[Any]:
    """Batches, epoch after epoch."""
    while True:
        yield from batches


def microseconds(
    work: Callable[[], object], calls: int, batch_size: int, warm_up: int = 1
) -> Callable[[], float]:
    """A clock for `work`: microseconds an image."""
    return lambda: 1e6 * seconds_per_call(work, calls, CPU, warm_up) / batch_size


def measure(
    batches: TrainBatches, resolution: int, stage: str, args: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """One stage at one size: microseconds an image of each path, and its ratio to ours."""
    size, split = args.batch_size, batches.split
    alone = endless(loader(split, resolution, size, stage, 0))
    seconds = in_turn(
        {
            "batched": microseconds(Batched(batches, resolution, stage), args.calls, size),
            "Pillow": microseconds(lambda: next(alone), args.calls, size),
        },
        args.rounds,
    )
    if args.workers:
        several = endless(loader(split, resolution, size, stage, args.workers))
        # Not in turn: the processes load ahead, and would do so on the others' cores.
        clock = microseconds(lambda: next(several), 4 * args.workers * args.calls, size, 0)
        for _ in range(2 * args.workers + 1):  # what was made before the clock runs
            next(several)
        seconds[f"Pillow, {args.workers} processes"] = [clock() for _ in range(args.rounds)]
    return {
        name: {
            "least_us": round(min(taken), 2),
            "median_us": round(statistics.median(taken), 2),
            "times_batched": [
                round(value, 3) for value in vars(ratio(taken, seconds["batched"])).values()
            ],
        }
        for name, taken in seconds.items()
    }


def between(results: list[dict[str, Any]], resolution: int) -> float:
    """Median time of Pillow's path up to float32 over that of the batched one up to uint8."""
    paths = {
        result["stage"]: result["paths"] for result in results if result["resolution"] == resolution
    }
    pillow, batched = paths["float32"]["Pillow"], paths["uint8"]["batched"]
    return round(float(pillow["median_us"] / batched["median_us"]), 1)


def main() -> None:
    """Measure, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", type=Path, help="folder of the archive; without: digits")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[32, 64, 128, 224])
    parser.add_argument("--batch-size", type=int, default=32, help="finetune.yaml has 32")
    parser.add_argument("--workers", type=int, default=1, help="loading processes; 0: only without")
    parser.add_argument("--calls", type=int, default=4, help="batches in a row")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    recipe = ours.make_recipe(
        "finetune.yaml", [f"train.batch_size={args.batch_size}", "train.device=cpu"], args.data_root
    )
    with ours.our_step(recipe) as step:
        batches = step.session.batches
    torch.set_num_threads(1)
    results = []
    table = Table("px", "up to", "path", "least us", "median us", "times batched")
    for resolution in args.resolutions:
        for stage in STAGES:
            paths = measure(batches, resolution, stage, args)
            results.append({"resolution": resolution, "stage": stage, "paths": paths})
            for name, row in paths.items():
                middle, least, most = row["times_batched"]
                times = f"{middle:.1f} ({least:.1f} to {most:.1f})"
                cells = (f"{row['least_us']:.1f}", f"{row['median_us']:.1f}", times)
                table.add_row(str(resolution), stage, name, *cells)
    handed_over = {str(resolution): between(results, resolution) for resolution in args.resolutions}
    facts = record.on(CPU)
    table.title = f"microseconds an image, one thread, {facts['device']}"
    console = Console()
    console.print(table)
    for resolution, times in handed_over.items():
        console.print(
            f"{resolution} px: Pillow's float32, which is what a DataLoader hands over, takes "
            f"{times} times the batched uint8, which is what a GPU would be handed here"
        )
    if args.output:
        record.save(
            args.output,
            "benchmarks.data_path",
            ("torch", "torchvision", "pillow"),
            **facts,
            images="digits" if args.data_root is None else "archive",
            batch_size=args.batch_size,
            rounds=args.rounds,
            results=results,
            pillow_float32_over_batched_uint8=handed_over,
        )


if __name__ == "__main__":
    main()
