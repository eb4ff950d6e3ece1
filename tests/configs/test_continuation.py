"""Which changes leave the steps that a run has taken as they were."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from configs import Recipe
from configs.continuation import Taken, changes, objections, shaping
from configs.schema import Data, Model, Optimizer, Run, Schedule, Train
from train.optim import learning_rate

STEPS_PER_EPOCH = 5
SCHEDULES = [
    Schedule(epochs=epochs, kind=kind, milestones=milestones, gamma=gamma, warmup_steps=warmup)
    for epochs, kind, milestones, gamma, warmup in itertools.product(
        (3, 4), ("step", "cosine", "linear"), ([], [1], [2], [1, 3]), (0.1, 0.5), (0, 7)
    )
]
COUNTS = (0, 1, 5, 6, 7, 8, 10, 11, 15, 16, 20)


def make(schedule: Schedule, max_steps: int | None = None) -> Recipe:
    return Recipe(schedule=schedule, train=Train(max_steps=max_steps))


def total(recipe: Recipe) -> int:
    steps = recipe.schedule.epochs * STEPS_PER_EPOCH
    return min(steps, recipe.train.max_steps or steps)


def rates(recipe: Recipe, steps: int) -> list[float]:
    return [
        learning_rate(
            step,
            recipe.optimizer.lr,
            recipe.schedule,
            steps_per_epoch=STEPS_PER_EPOCH,
            total_steps=total(recipe),
        )
        for step in range(steps)
    ]


def test_a_schedule_may_change_exactly_where_no_learning_rate_so_far_does() -> None:
    """Every pair of many schedules after every number of steps, against the rates themselves.

    But for the one step after a warm-up, which is at the peak on every schedule.
    """
    outcomes: Counter[bool] = Counter()
    recipes = [make(schedule) for schedule in SCHEDULES]
    each = [(recipe, shaping(recipe), rates(recipe, total(recipe))) for recipe in recipes]
    for (old, before, taken_rates), (new, now, next_rates) in itertools.product(each, each):
        for steps in COUNTS:
            if steps > total(old) or steps == old.schedule.warmup_steps + 1:
                continue
            is_right = steps <= total(new) and taken_rates[:steps] == next_rates[:steps]
            taken = Taken(steps, -(-steps // STEPS_PER_EPOCH))

            is_accepted = not objections(before, now, taken)

            assert is_accepted == is_right, f"{old} to {new} after {steps} steps"
            outcomes[is_accepted] += 1
    assert min(outcomes.values()) > 10_000


def test_a_limit_in_steps_may_move_but_not_into_the_past() -> None:
    schedule = Schedule(epochs=4, kind="step", milestones=[2])
    before = shaping(make(schedule, max_steps=12))

    assert not objections(before, shaping(make(schedule, max_steps=12)), Taken(12, 3))
    assert not objections(before, shaping(make(schedule)), Taken(12, 3))
    past = objections(before, shaping(make(schedule, max_steps=11)), Taken(12, 3))
    assert past == {"train.max_steps": "the run has taken 12 steps already"}


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (
            Recipe(schedule=Schedule(resolution=[(0.5, 128)])),
            "schedule.resolution is a share of the run's steps, and with another end",
        ),
        (
            Recipe(data=Data(cutmix=1.0, mix_until=0.8)),
            "data.mix_until is a share of the run's steps, and with another end",
        ),
        (Recipe(data=Data(cutmix=1.0)), None),
        (Recipe(data=Data(mix_until=0.8)), None),  # nothing is mixed
    ],
)
def test_a_run_that_counts_in_shares_of_its_steps_keeps_its_length(
    recipe: Recipe, reason: str | None
) -> None:
    longer = recipe.model_copy(
        update={"schedule": recipe.schedule.model_copy(update={"epochs": 40})}
    )
    limited = recipe.model_copy(update={"train": Train(max_steps=100)})
    for key, other in (("schedule.epochs", longer), ("train.max_steps", limited)):
        refused = objections(shaping(recipe), shaping(other), Taken(3, 1))

        assert list(refused) == ([key] if reason else [])
        assert refused.get(key, "").startswith(reason or "")
        assert objections(shaping(recipe), shaping(other), Taken(0, 0)) == {}


@pytest.mark.parametrize(
    ("changed", "key", "reason"),
    [
        (Recipe(run=Run(seed=1)), "run.seed", "the order of the images"),
        (Recipe(optimizer=Optimizer(lr=1.0)), "optimizer.lr", "taken with the value before"),
        (Recipe(data=Data(flip=0.0)), "data.flip", "saw other images"),
        (Recipe(data=Data(mixup=0.2)), "data.mixup", "saw other images"),
        (Recipe(model=Model(stem="cifar")), "model.stem", "another network"),
        (Recipe(train=Train(batch_size=64)), "train.batch_size", "taken with the value before"),
        (
            Recipe(schedule=Schedule(resolution=[(0.5, 128)])),
            "schedule.resolution",
            "saw images of other sizes",
        ),
    ],
)
def test_what_steps_follow_from_never_changes(changed: Recipe, key: str, reason: str) -> None:
    refused = objections(shaping(Recipe()), shaping(changed), Taken(0, 0))

    assert list(refused) == [key]
    assert reason in refused[key]


def test_a_graph_that_cannot_be_recorded_may_be_turned_off_in_the_run_itself() -> None:
    before, now = Recipe(), Recipe(train=Train(cuda_graph=False))

    assert changes(before, now) == []
    assert objections(shaping(before), shaping(now), Taken(10, 1)) == {}


def test_a_local_copy_may_come_or_go_at_any_time_and_another_archive_may_not() -> None:
    copied, other = Data(local_copy=True), Data(archive="cifar-100-python.tar.gz")

    assert changes(Recipe(), Recipe(data=copied)) == []
    assert changes(Recipe(), Recipe(data=other)) == ["data.archive"]
    assert not objections(shaping(Recipe()), shaping(Recipe(data=copied)), Taken(5, 1))


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("schedule.fixres_tail", "with another end its tail would begin at another step"),
        ("train.ema_half_life", "its weights so far would have been averaged otherwise"),
    ],
)
def test_a_run_with_a_share_of_its_steps_gets_no_other_length(key: str, reason: str) -> None:
    """Also on a step schedule and in a warm-up, where its learning rates would be the same."""
    section, name = key.split(".")
    before = Recipe.model_validate({section: {name: 0.25}})
    longer = before.schedule.model_copy(update={"epochs": 30})
    limited = before.train.model_copy(update={"max_steps": 900})

    for now in (
        before.model_copy(update={"schedule": longer}),
        before.model_copy(update={"train": limited}),
    ):
        [changed] = changes(before, now)
        refused = objections(shaping(before), shaping(now), Taken(5, 1))
        assert list(refused) == [changed]
        assert refused[changed].startswith(f"{key} is a share of the run's steps, and ")
        assert refused[changed].endswith(reason)
        assert not objections(shaping(before), shaping(now), Taken(0, 0))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("optimizer.decay_norms_and_biases", False, "steps so far were taken with the value"),
        ("schedule.fixres_tail", 0.1, "steps so far were taken with the value before"),
        ("train.ema_half_life", 0.1, "weights so far were averaged with the value before"),
    ],
)
def test_a_checkpoint_from_before_a_key_goes_on_at_its_default_only(
    key: str, value: object, reason: str
) -> None:
    """Not even before its first step: the checkpoint has no place for what the key adds."""
    section, name = key.split(".")
    now = Recipe.model_validate({section: {name: value}})
    old = {each: value for each, value in shaping(Recipe()).items() if each != key}

    for taken in (Taken(0, 0), Taken(3, 1)):
        assert objections(old, shaping(Recipe()), taken) == {}
        [(refused, why)] = objections(old, shaping(now), taken).items()
        assert refused == key
        assert reason in why
