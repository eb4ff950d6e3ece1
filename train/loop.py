"""The training loop: one epoch, one evaluation, one line of the log, and their order."""

from __future__ import annotations

import math
import resource
import time

import torch

from train.distributed import (
    STEP_TIMEOUT_SECONDS,
    average_buffers,
)
from train.errors import RequestError
from train.evaluate import Scores, evaluate
from train.session import (
    REMEDY,
    Session,
    phase,
    refuse_bad_loss,
    refuse_bad_weights,
    save,
    save_for_good,
    tell_of_saving,
)
from train.speed import device_name, read_stopwatch, speed_results, tell_speed
from train.state import flatten, unflatten, weights_sha256


def fit(session: Session) -> Scores | None:
    """Train to the end of the recipe.

    Returns:
        the scores after the last step, or None when a stop was asked for. The state is saved.

    Raises:
        RequestError: the loss or the weights are not finite any more.
    """
    state = session.state
    while True:
        scores = None
        if is_at_epoch_end(session):
            if is_due(session, session.recipe.evaluate.every_epochs) and not state.is_evaluated:
                scores = evaluate_epoch(session)
                if scores is None:
                    break
            if is_due(session, session.recipe.checkpoint.every_epochs) or state.is_best:
                save(session)
        if state.step == session.total_steps:
            # An attempt that was lost after its last checkpoint left only the results to be made.
            scores = scores or score(session)
            save_for_good(session)
            return scores
        if not train_epoch(session):
            break
    save_for_good(session)
    return None


def is_at_epoch_end(session: Session) -> bool:
    """Whether the last step was the last one of its epoch or of the run."""
    step = session.state.step
    return step == session.total_steps or (step > 0 and step % session.batches.steps_per_epoch == 0)


def is_due(session: Session, every_epochs: int) -> bool:
    """Whether what is done every so many epochs, and at the very end, is done now."""
    return session.state.step == session.total_steps or session.epoch % every_epochs == 0


def train_epoch(session: Session) -> bool:
    """Take the steps that are left of this epoch; False when a stop came before its end.

    Raises:
        RequestError: the loss or the weights are not finite any more.
    """
    state, every = session.state, session.recipe.logging.every_steps
    steps_per_epoch = session.batches.steps_per_epoch
    end = min((state.step // steps_per_epoch + 1) * steps_per_epoch, session.total_steps)
    state.model.train()
    with phase(session, "train"):
        while state.step < end and not session.stop.is_agreed():
            began = time.perf_counter()
            session.take_step(state.step, session.lr(state.step))
            state.step += 1
            session.pace.keep()
            state.interval.seconds += time.perf_counter() - began
            if session.tracer:
                session.tracer.step(state.step)
            if state.step % every == 0:
                write_training_line(session)
            if state.step == session.first_step + 1:
                session.ranks.set_timeout(STEP_TIMEOUT_SECONDS)
        began = time.perf_counter()
        refuse_bad_loss(session)  # which waits for the steps that a GPU is still at
        state.interval.seconds += time.perf_counter() - began
    read_stopwatch(session)
    refuse_bad_weights(session)
    return state.step == end


def score(session: Session) -> Scores | None:
    """The scores of the model as it is on the test images; None when a stop was agreed on.

    Afterwards all ranks have the mean batch-norm statistics, after a stop their own again. Where
    the weights are averaged, it is their average that is scored.
    """
    state, ranks = session.state, session.ranks
    own = flatten(state.statistics)
    with phase(session, "evaluate"):
        for model in state.models.values():
            average_buffers(model, ranks)
        scores = evaluate(
            state.outcome,
            session.dataset.test,
            session.recipe,
            ranks,
            session.autocast,
            session.stop,
        )
    if scores is None:
        for buffer, value in zip(state.statistics, unflatten(own, state.statistics), strict=True):
            buffer.copy_(value)
    return scores


def evaluate_epoch(session: Session) -> Scores | None:
    """Score the model, remember the scores, and write them down; None when a stop came first.

    Raises:
        RequestError: the loss on the test images is not finite.
    """
    began = time.perf_counter()
    state, scores = session.state, score(session)
    if scores is None:
        return None
    if not math.isfinite(scores.loss):
        raise RequestError(
            f"the loss on the test images after step {state.step} is not finite: {REMEDY}"
        )
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
            **flip_accuracies(scores),
            "loss": scores.loss,
            "seconds": round(time.perf_counter() - began, 3),
            "step": state.step,
            "steps": session.total_steps,
        }
    )
    return scores


def flip_accuracies(scores: Scores) -> dict[str, float]:
    """Those of an image and its mirror together, in percent; none where none were asked for."""
    if scores.flip is None:
        return {}
    flip = scores.flip
    return {"accuracy_top-1_flip": flip.top1_percent, "accuracy_top-5_flip": flip.top5_percent}


def write_training_line(session: Session) -> None:
    """Read the sums of the interval, the only time that the device runs out of steps, and log."""
    state, batches, device = session.state, session.batches, session.ranks.device
    began = time.perf_counter()
    refuse_bad_loss(session)
    if session.saver and not session.saver.is_busy:
        tell_of_saving(session)
    sums = torch.stack([state.interval.loss_sum, torch.tensor(state.interval.images).to(device)])
    loss_sum, images = session.ranks.all_reduce(sums).tolist()
    state.interval.seconds += time.perf_counter() - began
    read_stopwatch(session)
    steps, seconds = state.interval.steps, state.interval.seconds
    last = state.step - 1
    resolution = {"resolution": batches.resolution(last)} if batches.phases else {}
    session.journal.write(
        {
            "mode": "train",
            "epoch": session.epoch,
            "iter": last % batches.steps_per_epoch + 1,
            "lr": session.lr(last),
            **resolution,
            "memory": memory_mb(device),
            "data_time": state.interval.data_seconds / steps,
            "loss": loss_sum / images,
            "time": seconds / steps,
            "parts": {part: value / steps for part, value in state.interval.parts.items()},
            "step": state.step,
            "steps": session.total_steps,
            "images_per_second": images / seconds,
        }
    )
    tell_speed(session, images / seconds)
    state.interval.reset()


def memory_mb(device: torch.device) -> int:
    """Peak memory in MB: of tensors on the GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10


def results(session: Session, scores: Scores) -> dict[str, object]:
    """The content of results.json, but for the number of attempts."""
    state, ranks = session.state, session.ranks
    assert state.last is not None, "a run ends with an evaluation"
    assert state.best is not None
    images = state.step * session.recipe.train.batch_size
    return {
        "accuracy_top-1": state.last["accuracy_top-1"],
        "accuracy_top-5": state.last["accuracy_top-5"],
        **flip_accuracies(scores),
        "best": {key: state.best[key] for key in ("accuracy_top-1", "accuracy_top-5", "epoch")},
        "confusion_matrix": scores.confusion.tolist(),
        "classes": session.dataset.classes,
        "epochs": session.epoch,
        "steps": state.step,
        "images_per_second": images / state.seconds["train"],
        **speed_results(session),
        "seconds": {name: round(value, 3) for name, value in state.seconds.items()},
        "world_size": ranks.world_size,
        "device": device_name(session),
        "weights_sha256": weights_sha256(state.outcome),
    }
