"""Whether a run may go on under a changed recipe and still be one run.

It may where every step that it has taken would have been the same under the new recipe. The
launcher asks before it queues anything, the worker once more with what the checkpoint says.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.schema import Recipe

# What a worker accepts changed, by hand or because the machine is another one.
ELSEWHERE = {
    "data": {"root", "source", "md5", "archive", "local_copy"},
    "model": {"weights"},
    "train": {"micro_batch_size", "device", "precision", "deterministic", "compile", "cuda_graph"},
}
LENGTH = ("schedule.epochs", "train.max_steps")
# What may change at any time: no step depends on it. (A graph's steps are eager ones up to
# rounding, and where none can be recorded, turning it off must not cost the run.)
FREE_KEYS = ("run.notes", "data.root", "data.local_copy", "train.cuda_graph")
FREE = ("cluster", "evaluate", "checkpoint", "logging", *FREE_KEYS)
WHY = {
    "run": "its folder is named so",
    "run.readable_by": "its folder is there already; chmod changes it",
    "run.seed": "the order of the images and their augmentation follow from it",
    "data": "its steps so far saw other images",
    "model": "its checkpoint holds another network",
    "model.weights": "it goes on from its own checkpoint",
    "model.freeze_stages": "its steps so far trained other layers",
    "model.head_lr_multiplier": "its steps so far were taken with the value before",
    "optimizer": "its steps so far were taken with the value before",
    "schedule.fixres_tail": "its steps so far were taken with the value before",
    "schedule.resolution": "its steps so far saw images of other sizes",
    "train": "its steps so far were taken with the value before",
    "train.ema_half_life": "its weights so far were averaged with the value before",
}
# Keys that are shares of the run's steps, and what moves with its end.
SHARES = {
    "schedule.fixres_tail": "with another end its tail would begin at another step",
    "train.ema_half_life": "with another end its weights so far would have been averaged otherwise",
    "data.mix_until": "with another end other steps so far would have been mixed",
    "schedule.resolution": "with another end its steps so far would have seen other sizes",
}
FALLS = (
    "the learning rate of a {} schedule falls to 0 at the end of the run, so with another end "
    "every step so far would have been taken with another one"
)


@dataclass(frozen=True)
class Taken:
    """How far a run is: optimizer steps taken, and epochs that they have begun."""

    steps: int
    epochs: int


def shaping(recipe: Recipe) -> dict[str, Any]:
    """The keys that the weights follow from, with their values."""
    values: dict[str, Any] = {"run.seed": recipe.run.seed}
    for section in ("data", "model", "optimizer", "schedule", "train"):
        part = getattr(recipe, section).model_dump(exclude=ELSEWHERE.get(section, set()))
        values |= {f"{section}.{key}": value for key, value in part.items()}
    return values


def changes(before: Recipe, now: Recipe) -> list[str]:
    """The keys that differ, but for those that may change at any time."""
    pairs = zip(_flat(before).items(), _flat(now).values(), strict=True)
    changed = [key for (key, old), new in pairs if old != new]
    return [key for key in changed if key not in FREE and key.partition(".")[0] not in FREE]


def _flat(recipe: Recipe) -> dict[str, Any]:
    sections = recipe.model_dump()
    return {
        f"{name}.{key}": value for name, part in sections.items() for key, value in part.items()
    }


@functools.cache
def _defaults() -> dict[str, Any]:
    return shaping(Recipe())


def objections(before: Mapping[str, Any], now: Mapping[str, Any], taken: Taken) -> dict[str, str]:
    """The changed keys that would make the run another one, each with the reason.

    Args:
        before: `shaping` of the recipe that the steps were taken under.
        now: `shaping` of the recipe to go on under.
        taken: the steps.
    """
    # A checkpoint older than a key was made without what the key changes, as its default leaves it.
    before = _defaults() | dict(before)
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    reasons = {key: objection(key, before, now, taken) for key in changed}
    return {key: reason for key, reason in reasons.items() if reason}


def objection(
    key: str, before: Mapping[str, Any], now: Mapping[str, Any], taken: Taken
) -> str | None:
    """Why one key that differs would make the run another one; None if it would not."""
    section = key.partition(".")[0]
    if key in WHY or (section != "schedule" and key not in LENGTH):
        return WHY.get(key) or WHY[section]
    if not taken.steps:
        return None
    return (
        _too_short(key, now, taken)
        or _objection_to_shares(key, before)
        or _objection_to_rate(key, before, now, taken)
    )


def _objection_to_shares(key: str, before: Mapping[str, Any]) -> str | None:
    share = next((name for name in SHARES if _has_effect(name, before)), None)
    if key not in LENGTH or share is None:
        return None
    return f"{share} is a share of the run's steps, and {SHARES[share]}"


def _has_effect(share: str, before: Mapping[str, Any]) -> bool:
    if share == "data.mix_until":
        is_mixed = bool(before["data.mixup"] or before["data.cutmix"])
        return is_mixed and bool(before["data.mix_until"] < 1)
    return bool(before[share])


def _objection_to_rate(
    key: str, before: Mapping[str, Any], now: Mapping[str, Any], taken: Taken
) -> str | None:
    if key == "schedule.warmup_steps":
        return "the warm-up of its steps so far followed from it"
    if taken.steps <= before["schedule.warmup_steps"] == now["schedule.warmup_steps"]:
        return None  # the warm-up knows nothing of what comes after it
    kind = before["schedule.kind"]
    if key == "schedule.kind":
        return "the learning rate of its steps so far followed from it"
    if kind == "step":
        return _objection_to_drops(key, before, now, taken)
    # Milestones and gamma have no effect on the other kinds.
    return FALLS.format(kind) if key in LENGTH else None


def _objection_to_drops(
    key: str, before: Mapping[str, Any], now: Mapping[str, Any], taken: Taken
) -> str | None:
    # A milestone counts epochs that are over, so the steps of the last epoch begun are before it.
    passed = [epoch for epoch in before["schedule.milestones"] if epoch < taken.epochs]
    if key == "schedule.gamma" and passed:
        return f"the learning rate has dropped by it already, after epoch {passed[0]}"
    if key == "schedule.milestones":
        moved = [epoch for epoch in now[key] if epoch < taken.epochs]
        if moved != passed:
            return (
                f"the run is in epoch {taken.epochs}, and up to there the learning rate has "
                f"dropped after {_list(passed)}, not after {_list(moved)}"
            )
    return None


def _too_short(key: str, now: Mapping[str, Any], taken: Taken) -> str | None:
    if key == "schedule.epochs" and now[key] < taken.epochs:
        return f"the run is in epoch {taken.epochs} already"
    if key == "train.max_steps" and now[key] is not None and now[key] < taken.steps:
        return f"the run has taken {taken.steps:,} steps already"
    return None


def _list(epochs: list[int]) -> str:
    return f"epoch {', '.join(map(str, epochs))}" if epochs else "none"
