"""How many steps a run has and what is a share of them: arithmetic of the recipe alone."""

from __future__ import annotations

from configs.schema import Recipe, Schedule


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Optimizer steps of one pass, the last batch being filled up: 1,563 for 50,000 by 32."""
    return -(-num_images // batch_size)


def count_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole run."""
    steps = recipe.schedule.epochs * steps_per_epoch
    return min(steps, recipe.train.max_steps or steps)


def steps_of(share: float, total_steps: int) -> int:
    """The steps in a share of the run, whole ones: 0.8 of 98 are 78."""
    return round(share * total_steps)


def tail_steps(schedule: Schedule, total_steps: int) -> int:
    """Steps at the end of the run in which only the last layer and the batch norms are trained.

    FixRes: what a network has learned at low resolution is fitted to a higher one by these alone
    (Touvron et al. 2019, arXiv 1906.06423).
    """
    return steps_of(schedule.fixres_tail, total_steps)
