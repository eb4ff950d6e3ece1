"""The training loop: one epoch, one evaluation, one checkpoint, and the order they happen in."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from configs import Recipe
from train import checkpoint
from train.batches import TrainBatches
from train.dataset import Dataset
from train.distributed import Ranks, average_buffers
from train.errors import RequestError
from train.evaluate import Scores, evaluate
from train.journal import Silence
from train.optim import learning_rate
from train.state import Interval, TrainState, weights_sha256
from train.stop import StopFlag


@dataclass
class Session:
    """All that the loop works with: what to do, with what, where it is written, who asks to stop.

    `wrapped` is `state.model` as the training step calls it, under DDP when there are several
    ranks.
    """

    recipe: Recipe
    ranks: Ranks
    dataset: Dataset
    batches: TrainBatches
    state: TrainState
    wrapped: nn.Module
    journal: Silence
    stop: StopFlag
    run_dir: Path
    autocast: AbstractContextManager[None]
    saved_step: int = -1
    clock: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "data": 0.0})

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps = self.recipe.schedule.epochs * self.batches.steps_per_epoch
        return min(steps, self.recipe.train.max_steps or steps)

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


def fit(session: Session) -> Scores | None:
    """Train to the end of the recipe.

    Returns:
        the scores after the last step, or None when a stop was asked for; the state is saved then.

    Raises:
        RequestError: the loss is not finite any more.
    """
    recipe, state = session.recipe, session.state
    scores = None
    while state.step < session.total_steps:
        reached_the_end = train_epoch(session)
        refuse_bad_loss(session)
        if not reached_the_end:
            save(session)
            return None
        is_last = state.step == session.total_steps
        scores = None
        if is_last or session.epoch % recipe.evaluate.every_epochs == 0:
            scores = evaluate_epoch(session)
        if is_last or session.epoch % recipe.checkpoint.every_epochs == 0:
            save(session)
    if scores is None:  # an attempt that was lost after its last checkpoint left only the results
        scores = score(session) if state.is_evaluated else evaluate_epoch(session)
    return scores


def train_epoch(session: Session) -> bool:
    """Take the steps that are left of this epoch; False when a stop came before its end."""
    state, every = session.state, session.recipe.logging.every_steps
    steps_per_epoch = session.batches.steps_per_epoch
    end = min((state.step // steps_per_epoch + 1) * steps_per_epoch, session.total_steps)
    session.wrapped.train()
    with phase(session, "train"):
        while state.step < end:
            if stop_is_agreed(session):
                return False
            began = time.perf_counter()
            images, labels = session.batches(state.step)
            session.clock["data"] += time.perf_counter() - began
            train_step(session, images, labels)
            state.step += 1
            session.clock["train"] += time.perf_counter() - began
            if state.step % every == 0:
                write_training_line(session)
    return True


def train_step(session: Session, images: Tensor, labels: Tensor) -> None:
    """One optimizer step on this rank's share of a batch, micro-batch by micro-batch."""
    recipe, state, wrapped = session.recipe, session.state, session.wrapped
    size = recipe.train.micro_batch_size or len(images)
    parts = list(zip(images.split(size), labels.split(size), strict=True))
    state.optimizer.zero_grad(set_to_none=True)
    for number, (part, targets) in enumerate(parts, start=1):
        # Gradients add up on each rank and travel once, with the last micro-batch.
        waits = number < len(parts) and session.ranks.world_size > 1
        with wrapped.no_sync() if waits else contextlib.nullcontext():
            with session.autocast:
                logits = wrapped(part)
            loss = F.cross_entropy(
                logits.float(), targets, label_smoothing=recipe.train.label_smoothing
            )
            (loss / len(parts)).backward()
        state.interval.add(loss, len(part), state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = session.lr(state.step)
    state.optimizer.step()
    state.interval.steps += 1


def score(session: Session) -> Scores:
    """The scores of the model as it is on the test images."""
    model, ranks = session.state.model, session.ranks
    with phase(session, "evaluate"):
        average_buffers(model, ranks)
        return evaluate(model, session.dataset.test, session.recipe, ranks, session.autocast)


def evaluate_epoch(session: Session) -> Scores:
    """Score the model, remember the scores, and write them down."""
    state, scores = session.state, score(session)
    accuracies = {"accuracy_top-1": scores.top1_percent, "accuracy_top-5": scores.top5_percent}
    state.last = accuracies | {"epoch": session.epoch, "step": state.step}
    if state.best is None or scores.top1_percent > state.best["accuracy_top-1"]:
        state.best = state.last
    session.journal.write(
        {
            "mode": "val",
            "epoch": session.epoch,
            "iter": scores.num_batches,
            "lr": session.lr(state.step - 1),
            **accuracies,
            "loss": scores.loss,
            "step": state.step,
            "steps": session.total_steps,
        }
    )
    return scores


def save(session: Session) -> None:
    """Write the state of this step, once, from rank 0; the others wait until it is there."""
    state, ranks = session.state, session.ranks
    if session.saved_step == state.step:
        return
    with phase(session, "checkpoint"):
        average_buffers(state.model, ranks)
        if ranks.is_main:
            checkpoint.save(
                session.run_dir / "checkpoints",
                state.state_dict(),
                score=state.last["accuracy_top-1"] if state.last and state.is_evaluated else None,
                keep_last=session.recipe.checkpoint.keep_last,
            )
        if ranks.world_size > 1:
            dist.barrier()
    session.saved_step = state.step


def write_training_line(session: Session) -> None:
    """Read the sums of the interval, the only time that the host waits for the device, and log."""
    state, batches, device = session.state, session.batches, session.ranks.device
    began = time.perf_counter()
    refuse_bad_loss(session)
    sums = torch.stack([state.interval.loss_sum, torch.tensor(state.interval.images).to(device)])
    loss_sum, images = session.ranks.all_reduce(sums).tolist()
    session.clock["train"] += time.perf_counter() - began
    steps = state.interval.steps
    session.journal.write(
        {
            "mode": "train",
            "epoch": session.epoch,
            "iter": (state.step - 1) % batches.steps_per_epoch + 1,
            "lr": session.lr(state.step - 1),
            "memory": memory_mb(device),
            "data_time": session.clock["data"] / steps,
            "loss": loss_sum / images,
            "time": session.clock["train"] / steps,
            "step": state.step,
            "steps": session.total_steps,
            "images_per_second": images / session.clock["train"],
        }
    )
    state.interval = Interval.empty(device)
    session.clock = {"train": 0.0, "data": 0.0}


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
        kept = checkpoint.manifests(session.run_dir / "checkpoints")
        kept_text = f"step {kept[-1].step}" if kept else "none was written yet"
        raise RequestError(
            f"the loss of step {step + 1} on rank {rank} is not finite "
            f"(learning rate {session.lr(step):g}): lower optimizer.lr or raise "
            f"schedule.warmup_steps. The last good checkpoint is kept: {kept_text}"
        )


def stop_is_agreed(session: Session) -> bool:
    """Whether any rank was asked to stop; all ranks get the same answer at the same step.

    One rank leaving alone would hang the others in their next reduction.
    """
    asked = torch.tensor(int(session.stop.is_set))  # on the CPU: no wait for the device
    return bool(session.ranks.all_reduce(asked, dist.ReduceOp.MAX))


def memory_mb(device: torch.device) -> int:
    """Peak memory in MB: of tensors on the GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10


@contextlib.contextmanager
def phase(session: Session, name: str) -> Iterator[None]:
    """Add the seconds spent inside to the run's account of `name`."""
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds = session.state.seconds
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began


def results(session: Session, scores: Scores) -> dict[str, object]:
    """The content of results.json, but for the number of attempts."""
    state, ranks = session.state, session.ranks
    assert state.last is not None, "a run ends with an evaluation"
    assert state.best is not None
    device = "cpu" if ranks.device.type == "cpu" else torch.cuda.get_device_name(ranks.device)
    images = state.step * session.recipe.train.batch_size
    return {
        "accuracy_top-1": state.last["accuracy_top-1"],
        "accuracy_top-5": state.last["accuracy_top-5"],
        "best": {key: state.best[key] for key in ("accuracy_top-1", "accuracy_top-5", "epoch")},
        "confusion_matrix": scores.confusion.tolist(),
        "classes": session.dataset.classes,
        "epochs": session.epoch,
        "steps": state.step,
        "images_per_second": images / state.seconds["train"],
        "seconds": {name: round(value, 3) for name, value in state.seconds.items()},
        "world_size": ranks.world_size,
        "device": device,
        "weights_sha256": weights_sha256(state.model),
    }
