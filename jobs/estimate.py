"""When an attempt's time is over and when a run will have ended, as far as can be told."""

from __future__ import annotations

import time
from dataclasses import dataclass

from jobs.ledger import Attempt
from jobs.metrics import Progress
from jobs.rundir import RunDirectory, seconds_of


@dataclass(frozen=True)
class Plan:
    """What a run's recipe says of its length; None where it is silent."""

    epochs: int | None = None
    evaluate_every: int = 1
    time_limit: str | None = None


def read_plan(run: RunDirectory) -> Plan:
    """The plan in config.yaml.

    Read line by line, as dump_recipe writes it: the whole recipe with its checks takes 15 ms, and
    fifty runs are looked at together.
    """
    found: dict[str, str] = {}
    section = ""
    try:
        text = run.config.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Plan()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.startswith("  ") and not key.startswith("   "):
            found[f"{section}.{key.strip()}"] = value.strip()
        elif not key.startswith(" "):
            section = key
    epochs = found.get("schedule.epochs", "")
    every = found.get("evaluate.every_epochs", "")
    return Plan(
        epochs=int(epochs) if epochs.isdecimal() else None,
        evaluate_every=max(1, int(every)) if every.isdecimal() else 1,
        time_limit=found.get("cluster.time_limit"),
    )


def attempt_end(attempt: Attempt, plan: Plan) -> float | None:
    """When the recipe's time limit ends an attempt, in seconds since the epoch."""
    from pydantic import ValidationError

    from configs.cluster import Cluster

    try:
        limit = Cluster(time_limit=plan.time_limit or "").time_limit_seconds
        return seconds_of(attempt.start) + limit
    except (ValueError, ValidationError):
        return None


def run_end(progress: Progress, plan: Plan) -> float | None:
    """When a running run will have taken its last step and evaluated it, at its present speed.

    Counted from the newest line of its metrics, so it does not wander between two lines; None
    before the newest attempt has logged a step.
    """
    if None in (progress.step, progress.steps, progress.step_seconds, progress.written_at):
        return None
    assert progress.step is not None
    assert progress.steps is not None
    assert progress.step_seconds is not None
    assert progress.written_at is not None
    seconds = (progress.steps - progress.step) * progress.step_seconds
    if progress.evaluation_seconds:
        seconds += evaluations_left(progress, plan) * progress.evaluation_seconds
    return max(time.time(), progress.written_at + seconds)


def steps_per_epoch(progress: Progress, plan: Plan) -> int | None:
    """The steps of one epoch; None while nothing tells."""
    epoch, step, of_epoch = progress.epoch, progress.step, progress.epoch_step
    if epoch and epoch > 1 and step and of_epoch:
        return max(0, step - of_epoch) // (epoch - 1) or None
    if progress.steps and plan.epochs and progress.steps % plan.epochs == 0:
        length = progress.steps // plan.epochs
        # In a run cut short by train.max_steps epochs are longer than that.
        return length if epoch and step and step <= epoch * length else None
    return None


def evaluations_left(progress: Progress, plan: Plan) -> int:
    """How often the run will still be evaluated: after every Nth epoch and at its end."""
    step, steps = progress.step or 0, progress.steps or 0
    length = steps_per_epoch(progress, plan)
    if length is None:
        return 1
    every = length * plan.evaluate_every
    # The one at the end counts as one also where the last epoch is cut short.
    return -(-steps // every) - step // every
