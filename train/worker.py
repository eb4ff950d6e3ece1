"""From a run directory to a session that the loop can work with, and the run around the loop."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import nn

from configs import Recipe, RecipeError, read_resolved
from configs.effects import settings_without_effect
from configs.steps import count_steps, steps_per_epoch
from train import checkpoint
from train.average import WeightAverage
from train.batches import TrainBatches
from train.checkpoint import Manifest
from train.compilation import compile_model
from train.dataset import load_dataset
from train.distributed import Ranks, process_group, wrap
from train.errors import RequestError
from train.health import check_nodes
from train.loop import fit, results
from train.model import blank_model, build_model
from train.optim import make_optimizer
from train.pace import Pace
from train.profiling import make_tracer
from train.saver import Saver
from train.session import Session
from train.silence import Silence
from train.state import Interval, TrainState, check_same_run
from train.step import Step, make_step
from train.stop import StopFlag
from train.stopwatch import run_text
from train.vote import StopVote
from train.weights import Account, load_weights


def run(run_dir: Path, stop: StopFlag) -> bool:
    """Train the recipe in `run_dir` from where its newest checkpoint left it.

    Returns:
        True when results.json was written, False when a stop was asked for, or another node is
        unfit, and the state is saved.

    Raises:
        RequestError: the recipe, the data, the weights or the machine do not allow it.
        UnfitNodeError: this node is not what the run was given.
    """
    began = time.perf_counter()
    try:
        recipe = read_resolved(run_dir / "config.yaml")
    except RecipeError as error:
        raise RequestError("\n".join(error.problems)) from None
    with process_group(recipe.train) as ranks:
        print(describe(ranks), flush=True)
        is_fit, remarks = check_nodes(run_dir, recipe, ranks)
        for remark in remarks if ranks.is_main else []:
            print(f"warning: {remark}", flush=True)
        if not is_fit:
            return False
        folder = run_dir / "checkpoints"
        found = ranks.from_main(lambda: find_checkpoint(folder))
        session = ranks.together(lambda: set_up(run_dir, recipe, ranks, stop, found))
        try:
            prepare_steps(session)
            seconds = session.state.seconds
            seconds["start"] = seconds.get("start", 0.0) + time.perf_counter() - began
            scores = fit(session)
            session.take_step.close()
            if session.tracer:
                session.tracer.close()
            session.journal.say(f"time: {run_text(seconds)}")
            if scores is None:
                session.journal.say(f"stopped after step {session.state.step}")
                return False
            session.journal.finish(results(session, scores), scores, session.dataset)
            return True
        finally:
            if session.saver:
                session.saver.collect()
            session.journal.close()


def prepare_steps(session: Session) -> None:
    """Have the steps taken together with the other ranks and in the fastest way; a collective call.

    Afterwards the state is as it was before.
    """
    step = session.take_step
    assert isinstance(step, Step), "only set up"
    images, _ = session.batches(0)
    model: nn.Module = session.state.model
    if session.recipe.train.compile:
        model = compile_model(model, Path(session.recipe.run.root))
        example = images[: session.recipe.train.micro_batch_size]
    else:
        example = images[:2]
    with session.autocast:  # so that what is compiled here is what the steps call
        step.wrapped = wrap(model, session.ranks, example, session.recipe.train.gradients)
    session.take_step = make_step(step, session.journal.say)


def find_checkpoint(folder: Path) -> tuple[Manifest | None, list[str]]:
    """The checkpoint to go on from, chosen by one rank for all: they may see the folder differ.

    Raises:
        RequestError: there are checkpoints and every one of them is damaged.
    """
    with contextlib.suppress(OSError):  # on a read-only folder; saving will say so
        checkpoint.remove_unfinished(folder)
    return checkpoint.newest_intact(folder)


def describe(ranks: Ranks) -> str:
    """One line: who this worker is and what it works on."""
    device = "CPU" if ranks.device.type == "cpu" else torch.cuda.get_device_name(ranks.device)
    return (
        f"rank {ranks.rank} of {ranks.world_size} on {platform.node()}: {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )


def set_up(
    run_dir: Path,
    recipe: Recipe,
    ranks: Ranks,
    stop: StopFlag,
    found: tuple[Manifest | None, list[str]],
) -> Session:
    """Everything before the first step, on one rank.

    `found` is the checkpoint to go on from, if any, and warnings about others.
    """
    check_batch_size(recipe, ranks.world_size)
    set_determinism(recipe.train.deterministic)
    dataset = load_dataset(recipe.data, ranks.device)
    if dataset.remark:  # of this node; the journal is that of the first one
        print(f"warning: {dataset.remark}", flush=True)
    if len(dataset.classes) != recipe.model.num_classes:
        raise RequestError(
            f"model.num_classes is {recipe.model.num_classes}, "
            f"but {recipe.data.archive} has {len(dataset.classes)} classes: "
            f"set model.num_classes to {len(dataset.classes)}, or data.archive to another archive"
        )
    manifest, warnings = found
    folder = run_dir / "checkpoints"
    epoch = steps_per_epoch(len(dataset.train), recipe.train.batch_size)
    state, account = make_state(folder, recipe, ranks, manifest, epoch)
    saver = Saver(
        folder, recipe.checkpoint.keep_last, ranks.device, manifest.step if manifest else None
    )

    journal = (
        open_journal(run_dir, recipe, state.step, state.is_evaluated)
        if ranks.is_main
        else Silence()
    )
    for warning in warnings:
        journal.say(f"warning: {warning}")
    journal.say(
        f"data: {len(dataset.train):,} images to train, {len(dataset.test):,} to test, "
        f"{len(dataset.classes)} classes, MD5 {dataset.md5}"
    )
    if account:
        journal.say(f"weights: {account.summary()}")
    if manifest:
        journal.say(f"going on after step {state.step}")
    batches = TrainBatches(dataset.train, recipe, rank=ranks.rank, world_size=ranks.world_size)
    autocast = make_autocast(recipe, ranks, journal.say)
    session = Session(
        recipe=recipe,
        ranks=ranks,
        dataset=dataset,
        batches=batches,
        state=state,
        journal=journal,
        stop=StopVote(stop, ranks),
        saver=saver if ranks.is_main else None,
        take_step=Step(recipe, ranks, batches, state, state.model, autocast),
        autocast=autocast,
        pace=Pace(ranks.device),
        first_step=state.step,
        saved_step=manifest.step if manifest else None,
    )
    session.tracer = make_tracer(run_dir, session)
    for text in settings_without_effect(recipe, len(dataset.train)):
        journal.say(f"warning: {text}")
    return session


def make_state(
    folder: Path, recipe: Recipe, ranks: Ranks, manifest: Manifest | None, epoch: int
) -> tuple[TrainState, Account | None]:
    """The state to train from: that of the checkpoint, else the recipe's weights or random ones.

    `epoch`: optimizer steps of one.

    Raises:
        RequestError: the checkpoint is another recipe's, or the weights do not fit.
    """
    model = blank_model(recipe.model) if manifest else build_model(recipe.model, recipe.run.seed)
    account = None
    if recipe.model.weights and manifest is None:
        account = load_weights(model, Path(recipe.model.weights))
    model.to(ranks.device)
    optimizer = make_optimizer(
        model,
        recipe.optimizer,
        recipe.model.head_lr_multiplier,
        has_fixres_tail=recipe.schedule.fixres_tail > 0,
    )
    state = TrainState(model, optimizer, Interval.empty(ranks.device))
    if recipe.train.ema_half_life is not None:
        half_life = recipe.train.ema_half_life * count_steps(recipe, epoch)
        state.average = WeightAverage(model, half_life)
    if manifest:
        saved = checkpoint.load(folder, manifest, ranks.device)
        check_same_run(saved, recipe, epoch)
        state.load_state_dict(saved, ranks)
    return state, account


def open_journal(run_dir: Path, recipe: Recipe, step: int, is_evaluated: bool) -> Silence:
    """The journal of the one rank that needs TensorBoard and Matplotlib, a second to import."""
    from train.journal import Journal

    return Journal(run_dir, recipe, step, is_evaluated=is_evaluated)


def check_batch_size(recipe: Recipe, world_size: int) -> None:
    """Raise RequestError unless every rank gets the same number of images, and at least two."""
    batch_size, micro = recipe.train.batch_size, recipe.train.micro_batch_size
    share = batch_size // world_size
    if batch_size % world_size:
        raise RequestError(
            f"train.batch_size {batch_size} cannot be shared evenly by {world_size} workers: "
            f"the nearest that can are {share * world_size} and {(share + 1) * world_size}"
        )
    if micro and share % micro:
        raise RequestError(
            f"train.micro_batch_size {micro} does not divide the {share} images of each worker"
        )
    if min(share, micro or share) < 2:
        raise RequestError(
            "batch normalisation needs two images at a time or more on each worker: "
            "raise train.batch_size or train.micro_batch_size"
        )


def set_determinism(deterministic: bool) -> None:
    """Choose algorithms that repeat bit for bit, or let cuDNN look for the fastest."""
    if deterministic:  # cuBLAS of some torch versions refuses without it
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def make_autocast(
    recipe: Recipe, ranks: Ranks, say: Callable[[str], None]
) -> AbstractContextManager[None]:
    """bf16 autocast where the recipe or, for auto, every worker's GPU says so; else nothing."""
    wanted = recipe.train.precision
    if wanted == "auto" and ranks.some_have_bf16 and not ranks.has_bf16:
        say("warning: train.precision auto is fp32, for some workers' GPUs have no bf16 hardware")
    if wanted == "fp32" or (wanted == "auto" and not ranks.has_bf16):
        return contextlib.nullcontext()
    if not ranks.has_bf16:
        say("warning: train.precision bf16 is slow here: not every worker has bf16 hardware")
    return torch.autocast(ranks.device.type, torch.bfloat16)
