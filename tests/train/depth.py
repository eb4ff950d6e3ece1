"""How many blocks the network has, in tests of what does not depend on it.

A step of ResNet-50 takes a core half a second however small the images are, for it has 23.5 million
weights. How a run is interrupted, resumed, written down and scored is the same for one block in
each stage, a third of the weights; 33 MB of gradients are still several of DDP's buckets. The whole
network learns, is resumed and is scored in the tests of runs on any number of ranks, in those of
evaluation, on GPUs, in drills, in the main job and the quickstart.
"""

from __future__ import annotations

import train.model

SHALLOW = (1, 1, 1, 1)


def blocks() -> tuple[int, ...]:
    """Of the networks that this process makes."""
    return train.model.BLOCKS


def use(numbers: tuple[int, ...]) -> None:
    """Make networks of so many blocks from now on."""
    train.model.BLOCKS = numbers
