"""Interrupted and resumed: the same bits at the end, and every line once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from configs import dump_recipe
from configs.schema import Recipe
from tests.train.runs import board, changed, results, rows, shown_by_data_server, without_timings
from train import checkpoint
from train.errors import RequestError

Attempt = Callable[..., bool]
TAGS = ("train/loss", "train/lr", "val/accuracy_top-1", "val/loss")


@pytest.fixture
def recipe(recipe: Recipe) -> Recipe:
    """Two epochs of three steps, a training line after every second, three batches to test."""
    return changed(recipe, "evaluate", batch_size=10)


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
    recipe: Recipe, make_run: Callable[..., Path], attempt: Attempt, world_size: int, looks: int
) -> None:
    """Between any two steps or batches of an evaluation, also in the middle of a logging interval.

    Four ranks, because two hide that DDP groups its gradients anew after the first backward pass.
    """
    whole = make_run(recipe, name="whole")
    assert attempt(whole, world_size)
    run_dir = make_run(recipe, name="interrupted")
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
def test_run_interrupted_inside_mixing_and_phases_of_resolution_ends_bit_identical(
    recipe: Recipe, make_run: Callable[..., Path], attempt: Attempt
) -> None:
    """With every switch on, on two ranks, stopped before and after the images grow.

    Two steps of 24 px, then four of 32 px; the first five are mixed, the last one is the tail.
    """
    recipe = changed(recipe, "schedule", resolution=[(0.3, 24)], fixres_tail=0.2)
    recipe = changed(recipe, "data", mixup=0.2, cutmix=1.0, mix_until=0.8)
    recipe = changed(recipe, "train", ema_half_life=0.2)
    recipe = changed(changed(recipe, "logging", every_steps=1), "evaluate", flip=True)
    whole = make_run(recipe, name="whole")
    assert attempt(whole, world_size=2)
    run_dir = make_run(recipe, name="interrupted")
    assert not attempt(run_dir, world_size=2, looks=1)
    assert checkpoint.manifests(run_dir / "checkpoints")[-1].step == 2
    assert not attempt(run_dir, world_size=2, looks=1)
    assert attempt(run_dir, world_size=2)

    assert results(run_dir)["weights_sha256"] == results(whole)["weights_sha256"]
    assert without_timings(run_dir) == without_timings(whole)
    lines = {mode: [row for row in rows(whole) if row["mode"] == mode] for mode in ("train", "val")}
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


@pytest.mark.slow
def test_another_number_of_ranks_goes_on_with_the_same_batches_and_sums(
    recipe: Recipe, make_run: Callable[..., Path], attempt: Attempt
) -> None:
    """Up to rounding: at 64 px and with micro-batches, see the test of 1, 2 and 4 ranks."""
    recipe = changed(recipe, "train", micro_batch_size=8, max_steps=4)
    recipe = changed(recipe, "data", resolution=64)
    recipe = changed(recipe, "optimizer", lr=0.005)
    whole = make_run(recipe, name="whole")
    assert attempt(whole)
    run_dir = make_run(recipe, name="changed")
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
    folder = run_dir / "checkpoints"
    state = checkpoint.load(folder, checkpoint.manifests(folder)[-1], torch.device("cpu"))

    own = state["ranks"]["statistics"]
    assert not torch.equal(own[0], own[1])
    mean = state["model"]["bn1.running_mean"]
    assert torch.allclose(mean, own[:, : len(mean)].mean(dim=0))


@pytest.mark.slow
def test_a_finished_run_that_is_made_longer_ends_as_one_that_was_so_long_from_the_start(
    recipe: Recipe, make_run: Callable[..., Path], attempt: Attempt
) -> None:
    """Two epochs, then a third behind the next milestone, on two ranks."""
    recipe = changed(recipe, "schedule", kind="step", milestones=[1, 2], epochs=2)
    longer = changed(recipe, "schedule", epochs=3)
    whole = make_run(longer, name="whole")
    assert attempt(whole, world_size=2)
    run_dir = make_run(recipe, name="extended")
    assert attempt(run_dir, world_size=2)
    (run_dir / "results.json").rename(run_dir / "results-step-6.json")
    (run_dir / "config.yaml").write_text(dump_recipe(longer))

    assert attempt(run_dir, world_size=2)

    assert results(run_dir)["weights_sha256"] == results(whole)["weights_sha256"]
    for key in ("accuracy_top-1", "best", "confusion_matrix", "epochs", "steps"):
        assert results(run_dir)[key] == results(whole)[key]
    # The lines of the first two epochs name the end that they had before them.
    lines = [[row | {"steps": 9} for row in without_timings(path)] for path in (run_dir, whole)]
    assert lines[0] == lines[1]
    for reader in (board, shown_by_data_server):
        curves = [reader(path) for path in (run_dir, whole)]
        for tag in TAGS:
            assert curves[0][tag] == curves[1][tag]


def test_the_worker_refuses_to_go_on_as_another_run(
    recipe: Recipe, make_run: Callable[..., Path], attempt: Attempt
) -> None:
    run_dir = make_run(recipe)
    assert attempt(run_dir)
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
