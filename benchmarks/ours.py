"""This project's training step, as a benchmark takes it: the worker's own path, one rank.

Everything that a benchmark knows of how the worker is put together stands here.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks.pictures import digits_root
from configs import Recipe, load_recipe
from train.batches import Draw, TrainBatches
from train.distributed import Ranks, process_group
from train.session import Session
from train.step import Step
from train.stop import StopFlag
from train.worker import prepare_steps, set_up


def one_batch_of(batches: TrainBatches) -> TrainBatches:
    """`batches` of which all are the first one, which stays on the device: nothing is rendered."""
    same = copy.copy(batches)
    rendered: dict[int, tuple[Tensor, Tensor]] = {}

    def render(draw: Draw, resolution: int) -> tuple[Tensor, Tensor]:
        if resolution not in rendered:
            rendered[resolution] = batches.render(draw, resolution)
        return rendered[resolution]

    same.render = render
    return same


@dataclass
class OurStep:
    """One optimizer step of a run, to be called again and again; `said`: what the log would say.

    `warm_up`: calls before the clock may run.
    """

    session: Session
    said: list[str]
    number: int = 0
    warm_up: int = 1

    def begin(self) -> None:
        """Nothing: no process loads images."""

    def end(self) -> None:
        """Nothing."""

    def __call__(self) -> None:
        """Take the next step with the recipe's learning rate."""
        with contextlib.redirect_stdout(io.StringIO()) as told:
            self.session.take_step(self.number, self.session.recipe.optimizer.lr)
        self.said += told.getvalue().splitlines()
        self.number += 1


def make_recipe(
    config: str, overrides: list[str], data_root: Path | None, weights: Path | None = None
) -> Recipe:
    """A recipe without a checkpoint, unless one is given, on the images of `data_root` or digits.

    Raises:
        RecipeError: it is not a valid one.
    """
    root = data_root or digits_root()
    start = "null" if weights is None else str(weights)
    ours = [f"data.root={root}", "data.md5=none", f"model.weights={start}"]
    return load_recipe(config, [*ours, *overrides]).recipe


@contextlib.contextmanager
def our_step(recipe: Recipe, *, one_batch: bool = False) -> Iterator[OurStep]:
    """The step of a run of `recipe`, alone in a temporary run directory."""
    with process_group(recipe.train) as ranks, tempfile.TemporaryDirectory() as folder:
        step = start(recipe, ranks, Path(folder), one_batch=one_batch)
        try:
            yield step
        finally:
            step.session.journal.close()


def start(recipe: Recipe, ranks: Ranks, run_dir: Path, *, one_batch: bool = False) -> OurStep:
    """Set up a run in `run_dir` up to its first step, a collective call."""
    with contextlib.redirect_stdout(io.StringIO()) as told:
        session = set_up(run_dir, recipe, ranks, StopFlag(), (None, []))
        if one_batch:
            assert isinstance(session.take_step, Step), "not yet recorded"
            session.take_step.batches = one_batch_of(session.batches)
        prepare_steps(session)
        session.state.model.train()
    return OurStep(session, told.getvalue().splitlines())
