"""Where the time of steps goes: everything is counted once, and counting changes nothing."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from configs.schema import Recipe
from tests.train.runs import board, changed, results, rows
from tests.train.steps import waiting_refused
from tests.train.test_step import step_on
from train.step import make_step
from train.stopwatch import Stopwatch, run_text, step_text

CPU = torch.device("cpu")
ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_a_part_lasts_from_the_lap_before_to_its_own_and_pauses_do_not_count() -> None:
    stopwatch = Stopwatch(CPU)
    stopwatch.lap("before the start")
    began = time.perf_counter()
    for _ in range(2):
        stopwatch.start()
        time.sleep(0.02)
        stopwatch.lap("data")
        stopwatch.lap("optimizer")
        paused = time.perf_counter()
        time.sleep(0.1)
        began += time.perf_counter() - paused
    passed = time.perf_counter() - began

    parts = stopwatch.read()
    assert list(parts) == ["data", "optimizer"]
    assert 0.04 <= parts["data"] <= parts["data"] + parts["optimizer"] <= passed
    assert stopwatch.read() == {}


def test_nothing_is_marked_while_it_is_stopped() -> None:
    stopwatch = Stopwatch(CPU)
    stopwatch.start()
    stopwatch.lap("data")
    stopwatch.stop()
    stopwatch.lap("optimizer")

    assert list(stopwatch.read()) == ["data"]


@ON_A_GPU
@pytest.mark.gpu
def test_a_gpu_is_timed_by_its_own_clock_without_waiting() -> None:
    stopwatch, values = Stopwatch(torch.device("cuda")), torch.rand(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    with waiting_refused():
        stopwatch.start()
        for _ in range(50):
            values @ values
        stopwatch.lap("forward_backward")
        assert stopwatch.read() == {}
    torch.cuda.synchronize()

    assert stopwatch.read()["forward_backward"] > 0.01


@ON_A_GPU
@pytest.mark.gpu
def test_a_recorded_step_is_one_part_and_the_eager_ones_before_it_are_told() -> None:
    said: list[str] = []
    step = make_step(step_on(torch.device("cuda", 0)), said.append)
    for number in range(3):
        step(number, 0.01)
    torch.cuda.synchronize()

    parts = step.stopwatch.read()
    assert list(parts) == ["recording", "data", "replay"]
    assert min(parts.values()) > 0
    assert re.search(r"time went to data .* %, forward and backward .* %, optimizer", said[0])


def test_a_runs_time_is_told_in_percent_that_add_up() -> None:
    phases = {"start": 10.0, "train": 80.0, "evaluate": 8.0, "checkpoint": 2.0}
    parts = {"data": 4.0, "forward_backward": 60.0, "all_reduce": 8.0, "optimizer": 5.0}
    seconds = phases | {f"train/{part}": value for part, value in parts.items()}

    assert run_text(seconds) == (
        "100 s: start 10.0 %, data 4.0 %, forward and backward 60.0 %, all-reduce 8.0 %, "
        "optimizer 5.0 %, evaluation 8.0 %, checkpoints 2.0 %, other 3.0 %"
    )
    assert step_text({"replay": 3.0, "data": 1.0}) == "data 25.0 %, steps as a CUDA graph 75.0 %"


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_parts_of_training_are_in_the_log_the_results_and_tensorboard(
    recipe: Recipe, whole_run: Callable[..., Path], world_size: int
) -> None:
    run_dir = whole_run(recipe, world_size)

    names = {"data", "forward_backward", "optimizer"} | (
        {"all_reduce"} if world_size > 1 else set()
    )
    seconds = results(run_dir)["seconds"]
    parts = {key: value for key, value in seconds.items() if key.startswith("train/")}
    assert set(parts) == {f"train/{name}" for name in names}
    assert min(parts.values()) > 0
    # All of a step is one of its parts; the rest is votes and lines of the log.
    assert 0.5 * seconds["train"] < sum(parts.values()) <= seconds["train"]

    lines = [row for row in rows(run_dir) if row["mode"] == "train"]
    assert [set(row["parts"]) for row in lines] == [names, names, names]
    for row in lines:
        assert 0 < sum(row["parts"].values()) <= row["time"]
    shown = board(run_dir)
    for name in names:
        assert shown[f"train/time/{name}"] == [
            (r["step"], pytest.approx(r["parts"][name])) for r in lines
        ]

    log = (run_dir / "rank-0.log").read_text()
    assert re.search(r"^time: \d+ s: start .* %, other [\d.]+ %$", log, flags=re.MULTILINE)
    assert log.count("\nsteps of 32 px take ") == 1
    assert "images/s a GPU" not in log
    assert "roofline_percent" not in results(run_dir)


def _weights_and_parts(ranks: Any, recipe: Recipe) -> list[tuple[str, set[str]]]:
    """After three steps, with and without the mark at the last gradient; then in micro-batches."""
    from train.batches import TrainBatches
    from train.dataset import load_dataset
    from train.distributed import wrap
    from train.state import Interval, TrainState, weights_sha256
    from train.step import Step

    torch.set_num_threads(1)
    split = load_dataset(recipe.data, ranks.device).train
    recipe = changed(recipe, "train", batch_size=12)
    batches = TrainBatches(split, recipe, rank=ranks.rank, world_size=ranks.world_size)
    outcomes = []
    for size, is_marked in ((None, True), (None, False), (2, True), (2, False)):
        torch.manual_seed(1)
        layers = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2)
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
        optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
        state = TrainState(model, optimizer, Interval.empty(ranks.device))
        divided = changed(recipe, "train", micro_batch_size=size)
        step = Step(divided, ranks, batches, state, model, contextlib.nullcontext())
        if not is_marked:
            layers[0].weight._backward_hooks.clear()
        images, _ = batches(0)
        step.wrapped = wrap(model, ranks, images[:2])
        for number in range(3):
            step(number, 0.02)
        outcomes.append((weights_sha256(model), set(step.stopwatch.read())))
    return outcomes


def test_marking_the_last_gradient_changes_no_weight(
    recipe: Recipe, on_ranks: Callable[..., list[Any]]
) -> None:
    """Three ranks, for dividing by them rounds, as dividing by two does not."""
    for whole, unmarked, parted, parted_unmarked in on_ranks(3, _weights_and_parts, recipe):
        assert whole[0] == unmarked[0]
        assert parted[0] == parted_unmarked[0]
        assert whole[1] == parted[1] == {"data", "forward_backward", "all_reduce", "optimizer"}
        assert unmarked[1] == {"data", "all_reduce", "optimizer"}
