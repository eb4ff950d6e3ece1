"""Training steps in the process of a test, without a run around them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from configs.schema import Recipe
from train.batches import TrainBatches
from train.dataset import load_dataset
from train.distributed import Ranks
from train.step import Step
from train.worker import make_state

CPU = torch.device("cpu")
ALONE = Ranks(0, 0, 1, 1, CPU)


@contextlib.contextmanager
def waiting_refused() -> Iterator[None]:
    """Whatever makes the host wait for the GPU in the body of the with is an error."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def first_step(recipe: Recipe, ranks: Ranks = ALONE) -> Step:
    """The step of a new run on one rank, ready to be called; the state that it changes is in it."""
    split = load_dataset(recipe.data, ranks.device).train
    batches = TrainBatches(split, recipe, rank=0, world_size=1)
    state, _ = make_state(Path(), recipe, ranks, None, batches.steps_per_epoch)
    return Step(recipe, ranks, batches, state, state.model.train(), contextlib.nullcontext())
