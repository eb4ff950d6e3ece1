"""Time left and the estimated end, from the recipe and the measured speed."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from configs import Recipe, dump_recipe
from configs.cluster import Cluster
from configs.schema import Evaluate, Schedule
from jobs import estimate
from jobs.estimate import Plan
from jobs.ledger import Attempt
from jobs.metrics import Progress
from jobs.rundir import RunDirectory, seconds_of

SOON = time.time() + 3600
HALF = Progress(
    epoch=5, step=450, steps=1000, epoch_step=50, step_seconds=2.0, written_at=SOON
)  # fmt: skip


def test_the_plan_is_the_recipes(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    recipe = Recipe(
        cluster=Cluster(time_limit="1-02:00:00"),
        schedule=Schedule(epochs=7),
        evaluate=Evaluate(every_epochs=3),
    )
    run.config.write_text(dump_recipe(recipe))

    assert estimate.read_plan(run) == Plan(7, 3, "1-02:00:00")


@pytest.mark.parametrize("text", ["", "schedule:\n  epochs: many\n", "- a\n", "\0\xff"])
def test_a_strange_recipe_plans_nothing(tmp_path: Path, text: str) -> None:
    run = RunDirectory(tmp_path)
    run.config.write_text(text)

    assert estimate.read_plan(run) == Plan()


def test_steps_and_evaluations_that_are_left_make_the_end() -> None:
    with_evaluations = dataclasses.replace(HALF, evaluation_seconds=30.0)

    assert estimate.run_end(HALF, Plan(10, 1)) == SOON + 550 * 2.0
    # Epochs 5 to 10 are still to be evaluated, or 6, 9 and the last.
    assert estimate.run_end(with_evaluations, Plan(10, 1)) == SOON + 550 * 2.0 + 6 * 30.0
    assert estimate.run_end(with_evaluations, Plan(10, 3)) == SOON + 550 * 2.0 + 3 * 30.0


def test_the_end_is_never_in_the_past() -> None:
    stalled = dataclasses.replace(HALF, written_at=1.0)

    assert estimate.run_end(stalled, Plan(10)) == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("missing", ["step", "steps", "step_seconds", "written_at"])
def test_nothing_is_guessed_before_the_speed_is_known(missing: str) -> None:
    unknown = dataclasses.replace(HALF, **{missing: None})

    assert estimate.run_end(unknown, Plan(10)) is None


def test_the_length_of_an_epoch_is_known_as_soon_as_possible() -> None:
    first = Progress(epoch=1, step=30, steps=1000, epoch_step=30)
    cut_short = Progress(epoch=1, step=130, steps=1000, epoch_step=130)

    assert estimate.steps_per_epoch(HALF, Plan(20)) == 100
    assert estimate.steps_per_epoch(first, Plan(10)) == 100
    # train.max_steps ends this run within its first epoch.
    assert estimate.steps_per_epoch(cut_short, Plan(10)) is None


def test_strange_figures_make_no_epoch() -> None:
    strange = Progress(epoch=5, step=50, steps=1000, epoch_step=50, step_seconds=1, written_at=SOON)

    assert estimate.steps_per_epoch(strange, Plan()) is None
    assert estimate.run_end(strange, Plan()) == SOON + 950


def test_the_recipes_limit_counts_from_the_start_of_the_attempt() -> None:
    attempt = Attempt(1, "7", 0, ["node1"], "2026-01-01T10:00:00Z")

    end = estimate.attempt_end(attempt, Plan(time_limit="1-02:00:00"))
    assert end == seconds_of("2026-01-02T12:00:00Z")
    assert estimate.attempt_end(attempt, Plan()) is None
    assert estimate.attempt_end(attempt, Plan(time_limit="soon")) is None
