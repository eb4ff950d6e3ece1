"""What a run writes down: metrics.jsonl, TensorBoard, the rank's log and results.json.

One rank keeps the journal; the others hold a `Silence`, so the loop never asks who it is.
`metrics.jsonl` speaks MMClassification's log format, with keys of our own beside its keys.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from configs import Recipe, dump_recipe
from train.dataset import Dataset
from train.evaluate import Scores
from train.pictures import confusion_picture, mistakes_picture

SCALARS = {
    "train": ("loss", "lr", "images_per_second"),
    "val": ("accuracy_top-1", "accuracy_top-5", "loss"),
}


def attempt_number(run_dir: Path) -> int:
    """The number of the attempt that runs now: the last one in attempts.jsonl, else 1."""
    try:
        lines = (run_dir / "attempts.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return 1
    return int(json.loads(lines[-1])["attempt"]) if lines else 1


class Silence:
    """The journal of a rank that keeps none."""

    def say(self, text: str) -> None:
        """Nothing."""

    def write(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def finish(self, results: dict[str, Any], scores: Scores, dataset: Dataset) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Journal(Silence):
    """The journal of rank 0.

    Args:
        run_dir: the run directory.
        recipe: shown in TensorBoard as text and, at the end, as hparams.
        step: the step that this attempt goes on from; lines of later steps, which a lost attempt
            wrote after its last checkpoint, are removed.
    """

    def __init__(self, run_dir: Path, recipe: Recipe, step: int) -> None:
        self.run_dir = run_dir
        self.recipe = recipe
        self.attempt = attempt_number(run_dir)
        self.metrics_path = run_dir / "metrics.jsonl"
        keep_lines_until(self.metrics_path, step)
        self.metrics = self.metrics_path.open("a", buffering=1)
        # Both of TensorBoard's loaders drop what a lost attempt wrote only when every attempt, the
        # first one too, says from which step on it writes.
        self.tensorboard = SummaryWriter(
            str(run_dir / "tensorboard"), purge_step=step + 1 if step else 0
        )
        if step == 0:
            text = "\n".join(f"    {line}" for line in dump_recipe(recipe).splitlines())
            self.tensorboard.add_text("recipe", text, 0)

    def say(self, text: str) -> None:
        """A sentence for the log."""
        print(text, flush=True)

    def write(self, row: dict[str, Any]) -> None:
        """One line of metrics.jsonl, its numbers in TensorBoard, and a readable line in the log."""
        row |= {"attempt": self.attempt}
        self.metrics.write(json.dumps(row) + "\n")
        for key in SCALARS[row["mode"]]:
            self.tensorboard.add_scalar(f"{row['mode']}/{key}", row[key], row["step"])
        if row["mode"] == "val":
            self.tensorboard.flush()
        self.say(readable(row))

    def finish(self, results: dict[str, Any], scores: Scores, dataset: Dataset) -> None:
        """The pictures and hparams in TensorBoard, then results.json, whole or not at all."""
        step = results["steps"]
        classes = dataset.classes
        board = self.tensorboard
        picture = confusion_picture(scores.confusion.numpy(), classes)
        board.add_image("val/confusion_matrix", picture, step, dataformats="HWC")
        picture = mistakes_picture(scores, dataset.test.images, classes)
        board.add_image("val/mistakes", picture, step, dataformats="HWC")
        finals = {f"val/{key}": results[key] for key in ("accuracy_top-1", "accuracy_top-5")}
        # add_hparams would start a second writer in a folder of its own; its parts do not.
        for summary in hparams(flat(self.recipe), finals):
            board.file_writer.add_summary(summary)
        board.flush()

        unfinished = self.run_dir / "results.json.partial"
        unfinished.write_text(json.dumps(results | {"attempts": self.attempt}, indent=2) + "\n")
        unfinished.replace(self.run_dir / "results.json")

    def close(self) -> None:
        """Bring everything to the disk."""
        self.tensorboard.close()
        self.metrics.flush()
        os.fsync(self.metrics.fileno())
        self.metrics.close()


def keep_lines_until(path: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl after `step`, and a last line that was cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    unfinished = path.with_suffix(".partial")
    unfinished.write_text("".join(kept))
    unfinished.replace(path)


def readable(row: dict[str, Any]) -> str:
    """A metrics line for people."""
    if row["mode"] == "train":
        return (
            f"epoch {row['epoch']} iter {row['iter']} | step {row['step']}/{row['steps']} "
            f"| loss {row['loss']:.4f} | lr {row['lr']:.3g} "
            f"| {row['images_per_second']:.1f} images/s | data {row['data_time'] * 1e3:.1f} ms "
            f"of {row['time'] * 1e3:.1f} ms"
        )
    return (
        f"epoch {row['epoch']} evaluated | top-1 {row['accuracy_top-1']:.2f} % "
        f"| top-5 {row['accuracy_top-5']:.2f} % | loss {row['loss']:.4f}"
    )


def flat(recipe: Recipe) -> dict[str, float | str | bool]:
    """The keys that shape the result, as TensorBoard's hparams take them."""
    sections = ("run", "data", "model", "optimizer", "schedule", "train")
    values: dict[str, float | str | bool] = {}
    for section in sections:
        for key, value in getattr(recipe, section).model_dump().items():
            values[f"{section}.{key}"] = value if isinstance(value, int | float) else str(value)
    return values
