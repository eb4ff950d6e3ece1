"""Seconds from the start of a training run to a given top-1, over recipes and seeds.

    python -m benchmarks.time_to_accuracy --config finetune_fast.yaml finetune.yaml --seeds 1 2 3
        --target 97 [--data-root DIR] [--weights FILE] [--set K=V]...
        [--output benchmarks/results/time_to_accuracy.json]

Each run is the real worker, `python -m train`, from start to finish, watched from outside. A score
counts from the moment that the worker writes it down; 'without start-up' begins with the first
step. The scores are those of the last epoch, so nothing is chosen on the test images. The seeds
come in turn: a first one of every recipe, then a second one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.pictures import digits_root
from configs import Recipe, dump_recipe, load_recipe

PROJECT = Path(__file__).resolve().parents[1]
SECONDS_TO_SAVE = 15  # of a worker that is asked to stop
LEAST_SECONDS = 15  # for which a run is begun


@dataclass
class Watched:
    """One run: its lines of metrics.jsonl, each with `at`, the seconds since the process began."""

    recipe: Recipe
    run_dir: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    exit_code: int | None = None
    seconds: float = 0.0

    def look(self, seconds: float) -> None:
        """Take in the lines that are new."""
        metrics = self.run_dir / "metrics.jsonl"
        lines = metrics.read_text().splitlines() if metrics.is_file() else []
        self.rows += [json.loads(line) | {"at": seconds} for line in lines[len(self.rows) :]]

    @property
    def start_up(self) -> float:
        """Seconds until the first step began."""
        first = next(row for row in self.rows if row["mode"] == "train")
        return float(first["at"] - first["step"] * first["time"])

    def scores(self) -> list[dict[str, Any]]:
        """The lines of evaluations."""
        return [row for row in self.rows if row["mode"] == "val"]


def run(recipe: Recipe, run_dir: Path, limit_s: float | None) -> Watched:
    """Train `recipe` in a new `run_dir`; after `limit_s` seconds the worker is asked to stop."""
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(dump_recipe(recipe))
    watched = Watched(recipe, run_dir)
    began = time.perf_counter()
    worker = subprocess.Popen(
        [sys.executable, "-u", "-m", "train", "--run", str(run_dir)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    timers = []
    if limit_s is not None:
        for seconds, number in (
            (limit_s, signal.SIGTERM),
            (limit_s + SECONDS_TO_SAVE, signal.SIGKILL),
        ):
            timers.append(threading.Timer(seconds, worker.send_signal, [number]))
            timers[-1].start()
    assert worker.stdout
    for line in worker.stdout:
        watched.said.append(line.rstrip())
        watched.look(time.perf_counter() - began)
    watched.exit_code = worker.wait()
    for timer in timers:
        timer.cancel()
    watched.seconds = time.perf_counter() - began
    return watched


def figures(watched: Watched, target: float) -> dict[str, Any]:
    """What is said of one run."""
    found: dict[str, Any] = {
        "seed": watched.recipe.run.seed,
        "exit_code": watched.exit_code,
        "process_s": round(watched.seconds, 2),
    }
    trained = [row for row in watched.rows if row["mode"] == "train"]
    if not trained:
        return found | {"last_lines": watched.said[-5:]}
    last = watched.rows[-1]
    spent = last["at"] - watched.start_up
    found |= {
        "start_up_s": round(watched.start_up, 2),
        "training_s": round(spent, 2),
        "steps": last["step"],
        "of_steps": last["steps"],
    }
    # The steps that a cut-off run did not come to are like those before, or of other images.
    if last["step"] == last["steps"] or not watched.recipe.schedule.resolution:
        found["training_s_of_all_steps"] = round(spent * last["steps"] / last["step"], 2)
    scores = watched.scores()
    if scores:
        for key in ("accuracy_top-1", "accuracy_top-5"):
            found[key] = scores[-1][key]
    reached = next((row["at"] for row in scores if row["accuracy_top-1"] >= target), None)
    if reached is not None:
        found["to_target_s"] = round(reached, 2)
        found["to_target_without_start_up_s"] = round(reached - watched.start_up, 2)
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds that came to the end; None for no such run."""
    whole = [found for found in runs if found["exit_code"] == 0]
    keys = (
        "accuracy_top-1",
        "accuracy_top-5",
        "training_s",
        "start_up_s",
        "to_target_s",
        "to_target_without_start_up_s",
    )
    summed: dict[str, Any] = {"runs": len(runs), "finished": len(whole)}
    for key in keys:
        values = [found[key] for found in whole if key in found]
        # A time to the target is one of all seeds or of none.
        if values and len(values) == len(whole):
            summed[key] = {
                "mean": round(statistics.mean(values), 3),
                "deviation": round(statistics.stdev(values), 3) if len(values) > 1 else None,
            }
    return summed


def shown(summed: dict[str, Any], key: str) -> str:
    """A mean and its deviation, for the table."""
    found = summed.get(key)
    if not found:
        return "-"
    if found["deviation"] is None:
        return f"{found['mean']:.2f}"
    return f"{found['mean']:.2f} ± {found['deviation']:.2f}"


def table_of(results: dict[str, dict[str, Any]], target: float, title: str) -> Table:
    """A line for each recipe."""
    table = Table(
        "recipe",
        "finished",
        "top-1 %",
        "training s",
        f"s to {target:g} %",
        "without start-up",
        "start-up s",
        title=title,
    )
    for config, found in results.items():
        summed = found["summary"]
        keys = (
            "accuracy_top-1",
            "training_s",
            "to_target_s",
            "to_target_without_start_up_s",
            "start_up_s",
        )
        cells = [shown(summed, key) for key in keys]
        table.add_row(config, f"{summed['finished']} of {summed['runs']}", *cells)
    return table


def make_recipe(config: str, seed: int, args: argparse.Namespace) -> Recipe:
    """The recipe of one run.

    Raises:
        RecipeError: it is not a valid one.
    """
    overrides = [f"run.seed={seed}", *args.set]
    if args.data_root == Path("digits"):
        overrides += [f"data.root={digits_root()}", "data.md5=none"]
    elif args.data_root:
        overrides.append(f"data.root={args.data_root}")
    recipe = load_recipe(config, overrides).recipe
    if args.weights and recipe.model.weights:
        recipe = load_recipe(config, [*overrides, f"model.weights={args.weights}"]).recipe
    return recipe


def main() -> None:
    """Train everything, and print and write the table, after each run anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", nargs="+", required=True, help="recipes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="of all recipes")
    parser.add_argument("--data-root", type=Path, help="folder of the archive, or the word digits")
    parser.add_argument("--weights", type=Path, help="for the recipes that start from some")
    parser.add_argument("--target", type=float, default=97.0, help="top-1 in percent")
    parser.add_argument(
        "--limit-s", type=float, help="for all runs together; what is late is stopped"
    )
    parser.add_argument("--logs", type=Path, help="folder to keep the run directories in")
    parser.add_argument("--output", type=Path, help="JSON file to write, after each run")
    args = parser.parse_args()

    end = time.monotonic() + (args.limit_s or 0.0)
    results: dict[str, dict[str, Any]] = {
        config: {"runs": [], "summary": summary([])} for config in args.config
    }
    on_gpu = torch.cuda.is_available()
    facts = record.on(torch.device("cuda" if on_gpu else "cpu"))
    facts["threads"] = os.environ.get("OMP_NUM_THREADS", "all cores")
    weights = record.file_of(args.weights)
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            for config in args.config:
                left = None if args.limit_s is None else end - time.monotonic()
                if left is not None and left < LEAST_SECONDS:
                    continue
                recipe = make_recipe(config, seed, args)
                name = f"{Path(config).stem}-seed-{seed}"
                watched = run(recipe, (args.logs or Path(folder)) / name, left)
                results[config]["runs"].append(figures(watched, args.target))
                results[config]["summary"] = summary(results[config]["runs"])
                if args.output:
                    record.save(
                        args.output,
                        "benchmarks.time_to_accuracy",
                        ("torch", "torchvision"),
                        **facts,
                        seeds=args.seeds,
                        target=args.target,
                        weights=weights,
                        overrides=args.set,
                        recipes=results,
                    )
    Console().print(table_of(results, args.target, facts["device"]))
    for config, found in results.items():
        for each in found["runs"]:
            if each["exit_code"]:
                print(f"{config}, seed {each['seed']}: exit code {each['exit_code']}", each)


if __name__ == "__main__":
    main()
