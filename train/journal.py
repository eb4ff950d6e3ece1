"""What a run writes down: metrics.jsonl, TensorBoard, the rank's log and results.json.

One rank keeps the journal; the others hold a `Silence`, so the loop never asks who it is.
`metrics.jsonl` speaks MMClassification's log format, with keys of our own beside its keys.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard.summary import hparams

from configs import Recipe, dump_recipe
from train.cache import Dataset
from train.errors import RequestError
from train.evaluate import Scores
from train.files import whole_file
from train.pictures import confusion_picture, mistakes_picture, mistakes_table
from train.records import Board, Lines, keep_rows_until, read_rows
from train.silence import Silence


def attempt_number(run_dir: Path) -> int:
    """The number of the attempt that runs now: the last one in attempts.jsonl, else 1."""
    attempts = [row["attempt"] for row in read_rows(run_dir / "attempts.jsonl", "attempt")]
    return attempts[-1] if attempts else 1


class Journal(Silence):
    """The journal of rank 0.

    A disk that is full does not end the run: what could not be written is held back and written
    with the next line.

    Args:
        run_dir: the run directory.
        recipe: shown in TensorBoard as text and, at the end, as hparams.
        step: the step that this attempt goes on from; lines of later steps, which a lost attempt
            wrote after its last checkpoint, are removed.
        is_evaluated: whether that step's scores are known; if not, its evaluation is to come.

    Raises:
        RequestError: the run directory cannot be written.
    """

    def __init__(self, run_dir: Path, recipe: Recipe, step: int, *, is_evaluated: bool) -> None:
        self.run_dir = run_dir
        self.recipe = recipe
        self.attempt = attempt_number(run_dir)
        try:
            kept = keep_rows_until(run_dir / "metrics.jsonl", step, is_evaluated=is_evaluated)
            self.lines = Lines(run_dir / "metrics.jsonl")
            # Both of TensorBoard's loaders drop what a lost attempt wrote only when every attempt,
            # the first one too, says from which step on it writes.
            self.board = Board(run_dir / "tensorboard", step)
        except OSError as error:
            raise RequestError(f"cannot write to {run_dir}: {error.strerror or error}") from None
        for row in kept:
            if row["step"] == step:
                self.tell(self.board.write(row))
        if step == 0:
            self.tell(self.board.write_text(dump_recipe(recipe)))

    def tell(self, problem: str | None) -> None:
        """Say what could not be written."""
        if problem:
            self.say(f"warning: {problem}; held back until it can be written")

    def say(self, text: str) -> None:
        """A sentence for the log."""
        with contextlib.suppress(OSError):  # a full disk
            print(text, flush=True)

    def write(self, row: dict[str, Any]) -> None:
        """One line of metrics.jsonl, its numbers in TensorBoard, and a readable line in the log."""
        row |= {"attempt": self.attempt}
        for part in (self.lines, self.board):
            self.tell(part.write(row))
        self.say(readable(row))

    def sync(self) -> None:
        """Have every line so far on the disk, where a dead node cannot take it along.

        Raises:
            OSError: a line is held back, or the disk fails.
        """
        self.lines.sync()
        self.board.sync()

    def finish(self, results: dict[str, Any], scores: Scores, dataset: Dataset) -> None:
        """The pictures and hparams in TensorBoard, mistakes.json, then results.json.

        Each file appears whole or not at all, and results.json comes last: whoever finds it finds
        the others.

        Raises:
            RequestError: they cannot be written.
        """
        step = results["steps"]
        classes = dataset.classes
        try:
            self.lines.catch_up()
            self.board.catch_up()
            board = self.board.open()
            for name, draw in (
                ("confusion_matrix", lambda: confusion_picture(scores.confusion.numpy(), classes)),
                ("mistakes", lambda: mistakes_picture(scores, dataset.test.images, classes)),
            ):
                if (picture := self.drawn(name, draw)) is not None:
                    board.add_image(f"val/{name}", picture, step, dataformats="HWC")
            finals = {f"val/{key}": results[key] for key in ("accuracy_top-1", "accuracy_top-5")}
            # add_hparams would start a second writer in a folder of its own; its parts do not.
            for summary in hparams(flat(self.recipe), finals):
                board.file_writer.add_summary(summary)
            board.flush()

            mistakes = mistakes_table(scores, dataset.test.images, classes)
            self.write_json("mistakes.json", {"mistakes": mistakes})
            self.write_json("results.json", results | {"attempts": self.attempt})
        except OSError as error:
            raise RequestError(
                f"training has ended, but the results cannot be written to {self.run_dir}: "
                f"{error.strerror or error}. Make room and resume the run"
            ) from None

    def drawn(self, name: str, draw: Callable[[], np.ndarray]) -> np.ndarray | None:
        """A picture, uint8 (height, width, 3); none, with a warning, where drawing it fails."""
        try:
            return draw()
        except Exception as error:  # no picture is worth the results
            self.say(f"warning: no picture of the {name.replace('_', ' ')}: {error}")
            return None

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a file of the run directory.

        Raises:
            OSError: it cannot be written.
        """
        text = json.dumps(content, indent=2) + "\n"
        with whole_file(self.run_dir / name) as file:
            file.write(text.encode())

    def close(self) -> None:
        """Bring everything to the disk."""
        for part in (self.board, self.lines):
            with contextlib.suppress(OSError):
                part.close()


def readable(row: dict[str, Any]) -> str:
    """A metrics line for people."""
    if row["mode"] == "train":
        size = f"| {row['resolution']} px " if "resolution" in row else ""
        return (
            f"epoch {row['epoch']} iter {row['iter']} | step {row['step']}/{row['steps']} "
            f"| loss {row['loss']:.4f} | lr {row['lr']:.3g} {size}"
            f"| {row['images_per_second']:.1f} images/s | data {row['data_time'] * 1e3:.1f} ms "
            f"of {row['time'] * 1e3:.1f} ms"
        )
    flip = ""
    if "accuracy_top-1_flip" in row:
        flip = f" | with mirror images top-1 {row['accuracy_top-1_flip']:.2f} %"
    return (
        f"epoch {row['epoch']} evaluated | top-1 {row['accuracy_top-1']:.2f} % "
        f"| top-5 {row['accuracy_top-5']:.2f} % | loss {row['loss']:.4f}{flip}"
    )


def flat(recipe: Recipe) -> dict[str, float | str | bool]:
    """The keys that shape the result, as TensorBoard's hparams take them."""
    sections = ("run", "data", "model", "optimizer", "schedule", "train")
    values: dict[str, float | str | bool] = {}
    for section in sections:
        for key, value in getattr(recipe, section).model_dump().items():
            values[f"{section}.{key}"] = value if isinstance(value, int | float) else str(value)
    return values
