"""What each technique of a fast recipe brings: its accuracy with all of them, and without each.

    python -m benchmarks.ablation --recipes finetune.yaml finetune_fast.yaml [--data-root DIR]
        [--weights FILE] [--epochs 4] [--images 1600] [--batch-size 32] [--resolution 64]
        [--lr-times 1] [--seeds 1 2 3] [--at-once 2] [--without TECHNIQUE ...]
        [--output benchmarks/results/ablation.json]

The first recipe is the one to be at least as good as. Both are made small in the same way: the same
images, epochs and batch; learning rates in proportion to the batch, times what is asked for; what a
schedule counts in epochs, steps or pixels at the same share of the run and of the resolution. So
each technique acts as it does in the recipe, for as long a part of a shorter run. Each run is the
real worker from start to finish, scored after its last step, on all test images or so many of them.
A technique that suits no run so small can be left out of every line; one line more then has it.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.pictures import digits_root
from benchmarks.time_to_accuracy import figures, run, summary
from configs import Recipe, load_recipe
from configs.steps import steps_per_epoch

CIFAR10_IMAGES = 50_000

# What is taken over from the first recipe where a line says 'without'.
TECHNIQUES = {
    "the checkpoint's own mean and deviation": ("data.mean", "data.std"),
    "a decay to 0, after a warm-up": (
        "schedule.kind",
        "schedule.milestones",
        "schedule.warmup_steps",
    ),
    "Nesterov's momentum": ("optimizer.nesterov",),
    "a higher rate for the last layer": ("model.head_lr_multiplier",),
    "no decay of norms and biases": ("optimizer.decay_norms_and_biases",),
    "its weight decay": ("optimizer.weight_decay",),
    "label smoothing": ("train.label_smoothing",),
    "normalisation over the whole batch": ("train.micro_batch_size",),
    "averaged weights": ("train.ema_half_life",),
    "small images first": ("schedule.resolution",),
    "the FixRes tail": ("schedule.fixres_tail",),
    "cutmix": ("data.cutmix", "data.mix_probability", "data.mix_until"),
}


def small(config: str, args: argparse.Namespace) -> dict[str, Any]:
    """The keys that make a recipe small, with their values."""
    recipe = load_recipe(config, []).recipe
    schedule = recipe.schedule
    shorter = args.epochs / schedule.epochs
    steps = schedule.epochs * steps_per_epoch(CIFAR10_IMAGES, recipe.train.batch_size)
    share = schedule.warmup_steps / steps
    new_steps = args.epochs * steps_per_epoch(args.images, args.batch_size)
    pixels = args.resolution / recipe.data.resolution
    batch = args.batch_size / recipe.train.batch_size
    return {
        "data.root": str(args.data_root or digits_root()),
        "data.md5": "none",
        "data.train_images": args.images,
        "data.test_images": args.test_images,
        "data.resolution": args.resolution,
        "model.weights": recipe.model.weights and args.weights and str(args.weights),
        "optimizer.lr": recipe.optimizer.lr * batch * args.lr_times,
        "schedule.epochs": args.epochs,
        "schedule.milestones": [round(epoch * shorter) for epoch in schedule.milestones],
        "schedule.warmup_steps": round(share * new_steps),
        "schedule.resolution": [[end, round(px * pixels)] for end, px in schedule.resolution],
        "train.batch_size": args.batch_size,
        "evaluate.every_epochs": args.epochs,
        "evaluate.flip": False,  # it is no part of the score
        "checkpoint.every_epochs": args.epochs,
        "logging.every_steps": min(10, new_steps),
    }


def load(config: str, values: dict[str, Any]) -> Recipe:
    """The recipe in a file with `values` of some keys.

    Raises:
        RecipeError: it is not a valid one.
    """
    return load_recipe(config, [f"{key}={json.dumps(each)}" for key, each in values.items()]).recipe


def value(recipe: Recipe, key: str) -> Any:
    """What a key is in a recipe, as JSON has it."""
    return json.loads(json.dumps(operator.attrgetter(key)(recipe)))


def lines(args: argparse.Namespace) -> dict[str, tuple[str, dict[str, Any]]]:
    """A recipe's file and its changed keys for each line of the table.

    Raises:
        SystemExit: a technique is to be left out that the fast recipe has not.
    """
    first, fast = args.recipes
    of_first, of_fast = small(first, args), small(fast, args)
    with_all = load(fast, of_fast)
    without_any = load(first, of_first)
    used = {
        name: old
        for name, keys in TECHNIQUES.items()
        if (old := {key: value(without_any, key) for key in keys})
        != {key: value(with_all, key) for key in keys}
    }
    for name in args.without:
        if name not in used:
            raise SystemExit(f"error: --without {name!r}: {fast} has it no more than {first}")
    left_out = {key: old for name in args.without for key, old in used.pop(name).items()}
    of_all = of_fast | left_out
    return {
        first: (first, of_first),
        fast: (fast, of_all),
        **{f"without {name}": (fast, of_all | old) for name, old in used.items()},
        **{
            f"with {name}": (fast, of_all | {key: value(with_all, key) for key in TECHNIQUES[name]})
            for name in args.without
        },
    }


def told(changed: dict[str, Any]) -> dict[str, Any]:
    """What the written figures say of it: nothing of where files lie."""
    return {key: each for key, each in changed.items() if key not in ("data.root", "model.weights")}


def table_of(results: dict[str, dict[str, Any]], fast: str, title: str) -> Table:
    """A line each, with how it differs from the line of the fast recipe, seed by seed."""
    table = Table("recipe", "top-1 %", f"against {fast}", title=title)
    whole = by_seed(results[fast])
    for name, found in results.items():
        own = by_seed(found)
        lost = [score - whole[seed] for seed, score in own.items() if seed in whole]
        scores = "-"
        if own:
            scores = f"{statistics.mean(own.values()):.2f} ({min(own.values()):.2f} to "
            scores += f"{max(own.values()):.2f})"
        table.add_row(name, scores, f"{statistics.mean(lost):+.2f}" if lost else "-")
    return table


def by_seed(found: dict[str, Any]) -> dict[int, float]:
    """Top-1 in percent of the runs that came to their end."""
    return {
        each["seed"]: each["accuracy_top-1"] for each in found["runs"] if each["exit_code"] == 0
    }


def main() -> None:
    """Train everything; print the table, and write it after each round of runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipes", nargs=2, required=True, metavar=("FIRST", "FAST"))
    parser.add_argument("--data-root", type=Path, help="folder of the archive; without: digits")
    parser.add_argument("--weights", type=Path, help="for the recipes that start from some")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=1600, help="of an epoch")
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--lr-times", type=float, default=1.0, help="of each recipe's own rate")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", help="lines, by their names")
    parser.add_argument("--without", nargs="+", default=[], choices=TECHNIQUES, metavar="TECHNIQUE")
    parser.add_argument("--at-once", type=int, default=1, help="runs at a time")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    known = lines(args)
    for name in args.only or []:
        if name not in known:
            parser.error(f"--only {name!r} is no line: {', '.join(map(repr, known))}")
    chosen = {
        name: line
        for name, line in known.items()
        if name in (args.only or [name]) or name == args.recipes[1]
    }
    weights = record.file_of(args.weights)
    results: dict[str, dict[str, Any]] = {
        name: {"changed": told(changed), "runs": []} for name, (_, changed) in chosen.items()
    }
    facts = record.on(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    facts["threads"] = os.environ.get("OMP_NUM_THREADS", "all cores")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.at_once) as pool:
        started = [
            (
                name,
                pool.submit(
                    run,
                    load(config, changed | {"run.seed": seed}),
                    Path(folder) / f"{number}-{seed}",
                    None,
                ),
            )
            for seed in args.seeds
            for number, (name, (config, changed)) in enumerate(chosen.items())
        ]
        for name, future in started:
            watched = future.result()
            results[name]["runs"].append(figures(watched, 100.0))
            results[name]["summary"] = summary(results[name]["runs"])
            if args.output:
                record.save(
                    args.output, "benchmarks.ablation", ("torch", "torchvision"), **facts,
                    weights=weights, results=results,
                )  # fmt: skip
    Console().print(table_of(results, args.recipes[1], facts["device"]))


if __name__ == "__main__":
    main()
