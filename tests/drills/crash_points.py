"""Kill the trainer at many moments, resume it each time, and compare the end with a calm run.

    python -m tests.drills.crash_points --moments 100

Every other kill is injected into a phase of the writing of a checkpoint, all phases in turn; the
others come at a random time. A run is killed again and again until it is through; then its
weights, its metrics.jsonl and its TensorBoard curves, in both of TensorBoard's readers, must equal
those of the run that was left alone.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs import dump_recipe
from configs.archives import ARCHIVE_NAME
from configs.schema import Data, Logging, Recipe, Schedule, Train
from tests import warm
from tests.train import depth
from tests.train.runs import board, results, shown_by_data_server, without_timings
from train.digits import write_digits

PHASES = (
    "the state is half written",
    "the state is written, not flushed",
    "the state is flushed, its SHA-256 is not known",
    "the manifest is written, not flushed",
    "nothing has its name yet",
    "the state has its name, the manifest has not",
    "both have their names, old ones are still there",
    "the oldest manifest is gone, its state is not",
)
CHECKPOINTS = 4


def recipe(root: Path) -> Recipe:
    """Four epochs of a step; a checkpoint after each, and a line after every third step.

    With an average of the weights, so that a checkpoint holds all that one can hold.
    """
    return Recipe(
        data=Data(root=str(root), md5="none", train_images=8, test_images=8, resolution=32),
        schedule=Schedule(epochs=CHECKPOINTS, kind="cosine"),
        train=Train(batch_size=8, device="cpu", ema_half_life=0.5),
        logging=Logging(every_steps=3),
    )


def train(run_dir: Path, phase: str | None, countdown: int, blocks: tuple[int, ...]) -> None:
    """Train, and die in `phase` of the checkpoint that makes `countdown` 0."""
    depth.use(blocks)
    from train.saver import Saver
    from train.stop import StopFlag
    from train.worker import run

    # A checkpoint that the disk is too slow for is waited for, and not left out, for all of them
    # are needed until an old one goes.
    Saver.is_busy = property(lambda _: False)
    if phase:
        die_in(phase, countdown)
    sys.stdout = (run_dir / "worker.log").open("a")
    run(run_dir, StopFlag())


def die_in(phase: str, countdown: int) -> None:
    """Change what a checkpoint is written with, so that it kills this process."""
    import torch

    from train import checkpoint

    written = itertools.count(1)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def after(calls: int, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, but the call with this number in the chosen checkpoint is the end instead."""
        made = itertools.count(1)

        def call(*args: Any) -> Any:
            if state["chosen"] and next(made) == calls:
                die()
            return work(*args)

        return call

    state = {"chosen": False}
    save = torch.save

    def save_or_die(value: Any, file: Any) -> None:
        state["chosen"] = next(written) == countdown
        if state["chosen"] and phase == PHASES[0]:
            file.write(os.urandom(2**20))
            file.flush()
            die()
        save(value, file)

    torch.save = save_or_die
    calls_before = {
        PHASES[1]: ("flush", 1),
        PHASES[2]: ("sha256_of", 1),
        PHASES[3]: ("flush", 2),
        PHASES[4]: ("rename", 1),
        PHASES[5]: ("rename", 2),
        PHASES[6]: ("prune", 1),
    }
    if phase in calls_before:
        name, calls = calls_before[phase]
        setattr(checkpoint, name, after(calls, getattr(checkpoint, name)))
    if phase == PHASES[7]:
        unlink = Path.unlink

        def unlink_or_die(path: Path, missing_ok: bool = False) -> None:
            unlink(path, missing_ok=missing_ok)
            if path.suffix == ".json":
                die()

        Path.unlink = unlink_or_die


class Drill:
    """Runs of one recipe in a folder, killed and resumed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)  # noqa: S311 - not a secret
        self.workers = warm.context()
        (folder / "data").mkdir()
        write_digits(folder / "data" / ARCHIVE_NAME)
        self.calm = self.new_run("calm")
        began = time.monotonic()
        assert self.attempt(self.calm, None, 0, None) == 0, "the run that is left alone"
        self.seconds = time.monotonic() - began

    def new_run(self, name: str) -> Path:
        """A run directory that holds nothing but its recipe."""
        run_dir = self.folder / name
        run_dir.mkdir()
        (run_dir / "config.yaml").write_text(dump_recipe(recipe(self.folder / "data")))
        return run_dir

    def attempt(
        self, run_dir: Path, phase: str | None, countdown: int, seconds: float | None
    ) -> int:
        """Train until the end or the kill; the exit code."""
        arguments = (run_dir, phase, countdown, depth.blocks())
        process = self.workers.Process(target=train, args=arguments)
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def kill_at_random(self, run_dir: Path) -> tuple[bool, str]:
        """One attempt that is meant to be killed; whether it was, and when."""
        seconds = self.random.uniform(0.0, self.seconds)
        return self.attempt(run_dir, None, 0, seconds) != 0, f"after {seconds:.2f} s"

    def kill_in_phase(self, run_dir: Path, phase: str) -> tuple[bool, str]:
        """One attempt that is meant to be killed in `phase`; whether it was, and when."""
        # Old checkpoints go when there are more than two and the best.
        countdown = 1 if phase != PHASES[7] else 0
        return self.attempt(run_dir, phase, countdown, None) != 0, phase

    def differences(self, run_dir: Path) -> list[str]:
        """In what a finished run differs from the calm one."""
        looks = {
            "weights": lambda path: results(path)["weights_sha256"],
            "metrics.jsonl": without_timings,
            "TensorBoard": board,
            "TensorBoard's data server": shown_by_data_server,
        }
        return [
            name
            for name, look in looks.items()
            if timeless(look(run_dir)) != timeless(look(self.calm))
        ]


def timeless(value: Any) -> Any:
    """`value` without the curves that are timings."""
    if not isinstance(value, dict):
        return value
    return {
        key: part
        for key, part in value.items()
        if key != "train/images_per_second" and not key.startswith("train/time/")
    }


def main(arguments: list[str]) -> int:
    """Run the drill; 0 if every moment was survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.crash_points")
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only-phases", action="store_true", help="no kills at random, so that it takes less time"
    )
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every purge
    with tempfile.TemporaryDirectory() as folder:
        drill = Drill(Path(folder), options.seed)
        kills = survived = runs = 0
        while kills < options.moments:
            runs += 1
            run_dir = drill.new_run(f"run-{runs}")
            moments: list[str] = []
            while kills < options.moments:
                if kills % 2 and not options.only_phases:
                    was_killed, moment = drill.kill_at_random(run_dir)
                else:
                    number = kills if options.only_phases else kills // 2
                    was_killed, moment = drill.kill_in_phase(run_dir, PHASES[number % len(PHASES)])
                if not was_killed:
                    break
                kills += 1
                moments.append(moment)
            if not (run_dir / "results.json").exists():
                drill.attempt(run_dir, None, 0, None)
            finished = (run_dir / "results.json").exists()
            wrong = drill.differences(run_dir) if finished else ["it does not end"]
            survived += 0 if wrong else len(moments)
            verdict = f"DIFFERS in {', '.join(wrong)}" if wrong else "bit-identical"
            print(f"run {runs}: {len(moments)} kills, {verdict}", flush=True)
            for moment in moments:
                print(f"  killed: {moment}", flush=True)
    print(f"{survived} of {kills}")
    return 0 if survived == kills else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
