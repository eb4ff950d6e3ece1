"""What a recipe asks for and a run of its length never comes to."""

from __future__ import annotations

from configs.schema import Recipe
from configs.steps import count_steps, steps_of, steps_per_epoch, tail_steps


def settings_without_effect(recipe: Recipe, num_images: int) -> list[str]:
    """What the recipe asks for and a run with so many images never comes to: one text each.

    Only to be told: a run that is cut short for a trial has such settings, too.

    Returns:
        texts that begin with the key and end with the remedy, a colon between.
    """
    epoch = steps_per_epoch(num_images, recipe.train.batch_size)
    total_steps = count_steps(recipe, epoch)
    schedule, texts = recipe.schedule, []
    if recipe.model.freeze_stages is not None and recipe.model.weights is None:
        texts.append(
            "model.freeze_stages keeps layers at their random initial values, for model.weights is "
            "null: name a checkpoint or set model.freeze_stages to null"
        )
    if schedule.milestones and schedule.kind != "step":
        texts.append(
            f"schedule.milestones has no effect with schedule.kind {schedule.kind}: "
            "set it to [] or schedule.kind to step"
        )
    late = [number for number in schedule.milestones if number * epoch >= total_steps]
    if late and schedule.kind == "step":
        texts.append(
            f"schedule.milestones has {late}, but the run ends after {total_steps:,} steps of "
            f"{epoch:,} an epoch: raise schedule.epochs or lower the milestones"
        )
    if schedule.warmup_steps > total_steps:
        texts.append(
            f"schedule.warmup_steps is {schedule.warmup_steps:,}, but the run ends after "
            f"{total_steps:,} steps and never reaches optimizer.lr: lower it"
        )
    half_life, tail = recipe.train.ema_half_life, schedule.fixres_tail
    if half_life is not None and half_life * total_steps < 1:
        texts.append(
            f"train.ema_half_life {half_life:g} is less than one of the run's {total_steps:,} "
            "steps, so that the average is next to the model itself: raise it or set it to null"
        )
    if tail and not tail_steps(schedule, total_steps):
        texts.append(
            f"schedule.fixres_tail {tail:g} is less than half of one of the run's {total_steps:,} "
            "steps: raise it or set it to 0"
        )
    if tail and recipe.model.freeze_stages == 4:
        texts.append(
            "schedule.fixres_tail has no effect with model.freeze_stages 4, by which only the last "
            "layer is trained: set it to 0 or lower model.freeze_stages"
        )
    if not (recipe.optimizer.decay_norms_and_biases or recipe.optimizer.weight_decay):
        texts.append(
            "optimizer.decay_norms_and_biases false has no effect with optimizer.weight_decay 0: "
            "raise that or set this to true"
        )
    if recipe.train.batch_size > num_images:
        texts.append(
            f"train.batch_size is {recipe.train.batch_size:,}, more than the {num_images:,} "
            "training images, so that each batch repeats some: lower it"
        )
    return texts + _shares_without_effect(recipe, total_steps)


def _shares_without_effect(recipe: Recipe, total_steps: int) -> list[str]:
    data, texts, begin = recipe.data, [], 0
    for share, side in recipe.schedule.resolution:
        end = steps_of(share, total_steps)
        if begin == end:
            texts.append(
                f"schedule.resolution has no step at {side} pixels, for the run has "
                f"{total_steps:,}: leave [{share}, {side}] out or make the run longer"
            )
        begin = end
    for key in ("mix_probability", "mix_until"):
        if getattr(data, key) < 1 and not data.is_mixed:
            texts.append(
                f"data.{key} has no effect, for data.mixup and data.cutmix are 0: raise one of "
                f"them or set data.{key} to 1"
            )
    if data.is_mixed and not steps_of(data.mix_until, total_steps):
        texts.append(
            f"data.mix_until is {data.mix_until} of {total_steps:,} steps, which is none, so that "
            "no batch is mixed: raise it, or set data.mixup and data.cutmix to 0"
        )
    return texts
