"""All that the loop works with, how it is saved, and what must never be saved."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from configs import Recipe
from configs.continuation import shaping
from train.batches import TrainBatches
from train.cache import Dataset
from train.distributed import START_TIMEOUT_SECONDS, Ranks
from train.errors import RequestError
from train.optim import learning_rate
from train.pace import Pace
from train.profiling import Tracer
from train.saver import Saver
from train.silence import Silence
from train.state import TrainState
from train.step import GraphedStep, Step
from train.vote import StopVote

REMEDY = "lower optimizer.lr or raise schedule.warmup_steps"


@dataclass
class Session:
    """All that the loop works with: what to do, with what, where it is written, who asks to stop.

    `saver`: on the rank that writes. `first_step`: that this attempt began after. `saved_step`: of
    the newest checkpoint, begun or done. `tracer`: if steps are to be profiled. `lines`: training
    lines of this attempt, by resolution.
    """

    recipe: Recipe
    ranks: Ranks
    dataset: Dataset
    batches: TrainBatches
    state: TrainState
    journal: Silence
    stop: StopVote
    saver: Saver | None
    take_step: Step | GraphedStep
    autocast: AbstractContextManager[None]
    pace: Pace
    first_step: int
    saved_step: int | None
    tracer: Tracer | None = None
    lines: Counter[int] = field(default_factory=Counter)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.batches.total_steps

    @property
    def epoch(self) -> int:
        """Epochs begun, which is the number, from 1, of the epoch of the last step."""
        return -(-self.state.step // self.batches.steps_per_epoch)

    def lr(self, step: int) -> float:
        """The learning rate of `step` (from 0)."""
        return learning_rate(
            step,
            self.recipe.optimizer.lr,
            self.recipe.schedule,
            steps_per_epoch=self.batches.steps_per_epoch,
            total_steps=self.total_steps,
        )


@contextlib.contextmanager
def phase(session: Session, name: str) -> Iterator[None]:
    """Add the seconds spent inside to the run's account of `name`."""
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds = session.state.seconds
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began


def save(session: Session) -> None:
    """Begin to write the state of this step, from rank 0; training goes on meanwhile."""
    if session.saved_step == session.state.step:
        return
    with phase(session, "checkpoint"):
        snapshot = session.state.state_dict(session.ranks) | {
            "recipe": shaping(session.recipe),
            # What whoever uses the model needs to know, wherever the file has gone by then.
            "epoch": session.epoch,
            "classes": session.dataset.classes,
        }
        if session.saver:
            if session.saver.is_busy and not session.state.is_best:
                session.journal.say(
                    f"warning: the checkpoint of step {session.state.step} is left out: the one "
                    "before is still being written"
                )
            else:
                tell_of_saving(session)
                session.saver.start(snapshot, session.state.score, session.journal.sync)
    session.saved_step = session.state.step


def save_for_good(session: Session) -> None:
    """Have the state of this step on the disk, if that is possible, before any rank goes on."""
    session.stop.close()
    session.ranks.set_timeout(START_TIMEOUT_SECONDS)
    with phase(session, "checkpoint"):
        tell_of_saving(session)
        written = session.saver.written_step if session.saver else None
        if session.ranks.gather_objects(written)[0] != session.state.step:
            session.saved_step = None
            save(session)
            tell_of_saving(session)
        session.ranks.barrier()


def tell_of_saving(session: Session) -> None:
    """Wait for the checkpoint that is being written, and say so if it failed."""
    warning = session.saver.collect() if session.saver else None
    if warning:
        session.journal.say(f"warning: {warning}")


def refuse_bad_loss(session: Session) -> None:
    """Stop before a loss that is not finite gets into a checkpoint or a score.

    Raises:
        RequestError: on every rank, naming the first such step and its rank.
    """
    ranks = session.ranks
    never = torch.iinfo(torch.int64).max
    first_bad = int(session.state.interval.first_bad)
    found = torch.tensor(never if first_bad < 0 else first_bad * ranks.world_size + ranks.rank)
    earliest = int(ranks.all_reduce(found.to(ranks.device), dist.ReduceOp.MIN))
    if earliest != never:
        step, rank = divmod(earliest, ranks.world_size)
        raise RequestError(
            f"the loss of step {step + 1} on rank {rank} is not finite "
            f"(learning rate {session.lr(step):g}): {REMEDY}. {kept_text(session)}"
        )


def refuse_bad_weights(session: Session) -> None:
    """Stop before weights that are not finite get into a checkpoint or a score.

    The loss of a step is computed before its update, so it does not tell of the last one.

    Raises:
        RequestError: on every rank, naming the step.
    """
    state, ranks = session.state, session.ranks
    values = [value for value in state.model.state_dict().values() if value.is_floating_point()]
    is_good = torch.stack([value.isfinite().all() for value in values]).all()
    if not ranks.all_reduce(is_good.int(), dist.ReduceOp.MIN):
        raise RequestError(
            f"the weights after step {state.step} are not finite: {REMEDY}. {kept_text(session)}"
        )


def kept_text(session: Session) -> str:
    """Which checkpoint there is to go on from."""
    tell_of_saving(session)
    step = session.ranks.gather_objects(session.saver.written_step if session.saver else None)[0]
    kept = "none was written yet" if step is None else f"step {step}"
    return f"The last good checkpoint is kept: {kept}"
