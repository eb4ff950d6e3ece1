"""Interrupted and resumed: the same bits at the end, and every line once."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs import dump_recipe
from configs.schema import Recipe
from tests.train.runs import (
    board,
    changed,
    last_state,
    results,
    rows,
    shown_by_data_server,
    without_timings,
)
from tests.train.steps import ALONE, CPU
from train import checkpoint
from train.dataset import load_dataset
from train.errors import RequestError
from train.evaluate import evaluate
from train.model import build_model
from train.state import weights_sha256
from train.stop import StopFlag
from train.vote import StopVote

Attempt = Callable[..., bool]
TAGS = ("train/loss", "train/lr", "val/accuracy_top-1", "val/loss")


def interrupt_until_done(attempt: Attempt, run_dir: Path, world_size: int, looks: int) -> list[int]:
    """Attempts that stop after `looks` looks at the flag, then one more each; where they did."""
    steps: list[int] = []
    (run_dir / "attempts.jsonl").write_text('{"attempt": 1}\n')
    while not attempt(run_dir, world_size, looks + len(steps)):
        steps.append(checkpoint.manifests(run_dir / "checkpoints")[-1].step)
        with (run_dir / "attempts.jsonl").open("a") as ledger:
            ledger.write(f'{{"attempt": {len(steps) + 1}}}\n')
    return steps


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "looks"), [(1, 0), (4, 1)])
def test_run_interrupted_again_and_again_ends_bit_identical(
    recipe: Recipe,
    whole_run: Callable[..., Path],
    make_run: Callable[..., Path],
    attempt: Attempt,
    world_size: int,
    looks: int,
) -> None:
    """Between any two steps or batches of an evaluation, also in the middle of a logging interval.

    Four ranks, because two hide that DDP groups its gradients anew after the first backward pass.
    """
    whole = whole_run(recipe, world_size)
    run_dir = make_run(recipe)
    stops = interrupt_until_done(attempt, run_dir, world_size, looks)

    assert len(stops) >= 2
    assert {1, 2, 4, 5} & set(stops), "in the middle of an epoch"
    assert world_size > 1 or {3, 6} & set(stops), "in the middle of an evaluation"
    assert results(run_dir)["weights_sha256"] == results(whole)["weights_sha256"]
    assert results(run_dir)["attempts"] == len(stops) + 1
    assert without_timings(run_dir) == without_timings(whole)
    for reader in (board, shown_by_data_server):
        curves = [reader(path) for path in (run_dir, whole)]
        for tag in TAGS:
            assert curves[0][tag] == curves[1][tag]
            assert len({step for step, _ in curves[0][tag]}) == len(curves[0][tag])


@pytest.mark.slow
def test_run_with_every_switch_on_is_scored_with_its_average_and_ends_bit_identical(
    recipe: Recipe, make_run: Callable[..., Path], attempt: Attempt
) -> None:
    """On two ranks, stopped before the images grow and in the middle of an evaluation after that.

    Two steps of 24 px, then four of 32 px; the first five are mixed, the last one is the tail.
    """
    recipe = changed(recipe, "schedule", resolution=[(0.3, 24)], fixres_tail=0.2)
    recipe = changed(recipe, "data", mixup=0.2, cutmix=1.0, mix_until=0.8)
    recipe = changed(recipe, "model", head_lr_multiplier=10.0)
    recipe = changed(recipe, "optimizer", decay_norms_and_biases=False)
    recipe = changed(recipe, "train", ema_half_life=0.2)
    recipe = changed(changed(recipe, "logging", every_steps=1), "evaluate", flip=True)
    whole = make_run(recipe, name="whole")
    assert attempt(whole, world_size=2)
    run_dir = make_run(recipe, name="interrupted")
    assert not attempt(run_dir, world_size=2, looks=1)
    assert last_state(run_dir)["step"] == 2
    assert not attempt(run_dir, world_size=2, looks=1)
    stopped = last_state(run_dir)
    assert (stopped["step"], stopped["last"]) == (3, None), "in the middle of an evaluation"
    own = stopped["ranks"]["statistics"]
    assert not torch.equal(own[0], own[1])
    torch.testing.assert_close(statistics_in(stopped), own.mean(dim=0))
    assert attempt(run_dir, world_size=2)

    assert results(run_dir)["weights_sha256"] == results(whole)["weights_sha256"]
    assert results(run_dir)["best"] == results(whole)["best"]
    assert without_timings(run_dir) == without_timings(whole)
    check_switches(whole)
    check_average(whole, recipe)


def statistics_in(state: dict[str, Any]) -> Tensor:
    """The statistics in both models of a checkpoint, float32 (n,)."""
    values = [
        value
        for key in ("model", "model_ema")
        for name, value in state[key].items()
        if name.endswith(("running_mean", "running_var"))
    ]
    return torch.cat(values)


def check_switches(run_dir: Path) -> None:
    """Each step had its resolution; scores with flipped images stand beside the others."""
    lines = {
        mode: [row for row in rows(run_dir) if row["mode"] == mode] for mode in ("train", "val")
    }
    assert [row["resolution"] for row in lines["train"]] == [24, 24, 32, 32, 32, 32]
    shown, end = board(run_dir), results(run_dir)
    assert [value for _, value in shown["train/resolution"]] == [24, 24, 32, 32, 32, 32]
    for key in ("accuracy_top-1_flip", "accuracy_top-5_flip"):
        assert [value for _, value in shown[f"val/{key}"]] == [
            pytest.approx(row[key], rel=1e-6) for row in lines["val"]
        ]
        assert end[key] == lines["val"][-1][key]
    assert end["best"].keys() == {"accuracy_top-1", "accuracy_top-5", "epoch"}
    headline = [row["accuracy_top-1"] for row in lines["val"]]
    assert (end["accuracy_top-1"], end["best"]["accuracy_top-1"]) == (headline[-1], max(headline))


def check_average(run_dir: Path, recipe: Recipe) -> None:
    """All scores of a finished run are those of its average of the weights."""
    state = last_state(run_dir)
    averaged = build_model(recipe.model, seed=0)
    averaged.load_state_dict(state["model_ema"])
    assert weights_sha256(averaged) == results(run_dir)["weights_sha256"]
    assert not torch.equal(state["model"]["fc.weight"], state["model_ema"]["fc.weight"])
    test = load_dataset(recipe.data, CPU).test
    vote = StopVote(StopFlag(), ALONE)
    scores = evaluate(averaged, test, recipe, ALONE, contextlib.nullcontext(), vote)
    told = [row for row in without_timings(run_dir) if row["mode"] == "val"][-1]
    assert scores is not None
    assert scores.confusion.tolist() == results(run_dir)["confusion_matrix"]
    assert told["loss"] == pytest.approx(scores.loss, rel=1e-5)


@pytest.mark.slow
def test_another_number_of_ranks_goes_on_with_the_same_batches_and_sums(
    same_on_any_ranks: Recipe,
    whole_run: Callable[..., Path],
    make_run: Callable[..., Path],
    attempt: Attempt,
) -> None:
    """Up to rounding."""
    whole = whole_run(same_on_any_ranks)
    run_dir = make_run(same_on_any_ranks)
    assert not attempt(run_dir, world_size=2, looks=0)
    assert checkpoint.manifests(run_dir / "checkpoints")[-1].step == 1
    assert attempt(run_dir, world_size=1)

    losses = [
        [row["loss"] for row in rows(path) if row["mode"] == "train"] for path in (whole, run_dir)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_checkpoint_holds_the_mean_statistics_and_each_ranks_own(
    recipe: Recipe, make_run: Callable[..., Path], attempt: Attempt
) -> None:
    run_dir = make_run(recipe)
    assert not attempt(run_dir, world_size=2, looks=1)
    state = last_state(run_dir)

    own = state["ranks"]["statistics"]
    assert not torch.equal(own[0], own[1])
    mean = state["model"]["bn1.running_mean"]
    assert torch.allclose(mean, own[:, : len(mean)].mean(dim=0))


@pytest.mark.slow
def test_a_finished_run_that_is_made_longer_ends_as_one_that_was_so_long_from_the_start(
    recipe: Recipe, make_run: Callable[..., Path], attempt: Attempt
) -> None:
    """An epoch of two steps, then a second one behind the milestone, on two ranks."""
    recipe = changed(recipe, "data", train_images=16)
    recipe = changed(recipe, "schedule", kind="step", milestones=[1], epochs=1)
    longer = changed(recipe, "schedule", epochs=2)
    whole = make_run(longer, name="whole")
    assert attempt(whole, world_size=2)
    run_dir = make_run(recipe, name="extended")
    assert attempt(run_dir, world_size=2)
    (run_dir / "results.json").rename(run_dir / "results-step-2.json")
    (run_dir / "config.yaml").write_text(dump_recipe(longer))

    assert attempt(run_dir, world_size=2)

    assert results(run_dir)["weights_sha256"] == results(whole)["weights_sha256"]
    for key in ("accuracy_top-1", "best", "confusion_matrix", "epochs", "steps"):
        assert results(run_dir)[key] == results(whole)[key]
    # The lines of the first epoch name the end that they had before them.
    lines = [[row | {"steps": 4} for row in without_timings(path)] for path in (run_dir, whole)]
    assert lines[0] == lines[1]
    for reader in (board, shown_by_data_server):
        curves = [reader(path) for path in (run_dir, whole)]
        for tag in TAGS:
            assert curves[0][tag] == curves[1][tag]


def test_the_worker_refuses_to_go_on_as_another_run(
    recipe: Recipe, whole_run: Callable[..., Path], tmp_path: Path, attempt: Attempt
) -> None:
    run_dir = shutil.copytree(whole_run(recipe), tmp_path / "run")
    ends = (run_dir / "metrics.jsonl").read_bytes()
    for section, change, reason in (
        ("schedule", {"epochs": 3}, "falls to 0 at the end of the run"),
        ("schedule", {"epochs": 1}, "in epoch 2 already"),
        ("schedule", {"kind": "step"}, "schedule.kind was 'cosine' and is 'step'"),
        ("train", {"max_steps": 5}, "has taken 6 steps already"),
        ("optimizer", {"lr": 0.01}, "optimizer.lr was 0.02 and is 0.01"),
        ("run", {"seed": 2}, "run.seed was 1 and is 2: the order of the images"),
    ):
        text = dump_recipe(changed(recipe, section, **change))
        (run_dir / "config.yaml").write_text(text)

        with pytest.raises(RequestError, match=re.escape(reason)):
            attempt(run_dir)

        assert (run_dir / "metrics.jsonl").read_bytes() == ends
