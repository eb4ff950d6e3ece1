"""The order of images and their augmentation: functions of (seed, step), not of the hardware."""

from __future__ import annotations

import pytest
import torch

from configs.schema import Data
from train.batches import TrainBatches, steps_per_epoch
from train.cache import Split


def batches(
    rank: int = 0, world_size: int = 1, *, images: int = 100, seed: int = 3
) -> TrainBatches:
    pixels = torch.randint(
        256, (images, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return TrainBatches(
        Split(pixels, torch.arange(images)),
        Data(resolution=32),
        batch_size=24,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_any_number_of_ranks_sees_the_same_batches(world_size: int) -> None:
    """Pixels and labels of the ranks' shares, put together, are the batch of one rank."""
    alone = batches()
    shares = [batches(rank, world_size) for rank in range(world_size)]

    for step in range(12):
        images, labels = alone(step)
        parts = [share(step) for share in shares]
        assert torch.equal(torch.cat([part[0] for part in parts]), images)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)


def test_batch_is_a_function_of_the_step_alone() -> None:
    """A run that goes on after step 7 sees what the run from the start sees."""
    from_the_start, resumed = batches(), batches()
    for step in range(7):
        from_the_start(step)

    assert torch.equal(from_the_start(7)[0], resumed(7)[0])


def test_epoch_sees_every_image_and_fills_up_its_last_batch() -> None:
    source = batches()
    seen = torch.cat([source.draw(step).indices for step in range(5)])

    assert source.steps_per_epoch == 5
    assert torch.equal(seen[:100].sort().values, torch.arange(100))
    assert torch.equal(seen[100:], seen[:20])


def test_steps_per_epoch_are_those_of_mmcls() -> None:
    assert steps_per_epoch(50_000, 32) == 1_563
    assert steps_per_epoch(50_000, 128) == 391


def test_epochs_differ_in_order_and_seeds_in_everything() -> None:
    source, other = batches(), batches(seed=4)

    assert not torch.equal(source.order(0), source.order(1))
    assert not torch.equal(source.order(0), other.order(0))
    assert not torch.equal(source.draw(0).offsets, other.draw(0).offsets)
    assert not torch.equal(source.draw(0).offsets, source.draw(1).offsets)


def test_draws_are_even() -> None:
    """Every crop position comes about equally often, and half of the images are flipped."""
    source = batches()
    draws = [source.draw(step) for step in range(400)]
    counts = torch.cat([draw.offsets.flatten() for draw in draws]).bincount(minlength=9)
    flips = torch.cat([draw.flips for draw in draws]).float().mean()

    assert counts.shape == (9,)
    assert counts.float().div(counts.sum()).sub(1 / 9).abs().max() < 0.01
    assert abs(float(flips) - 0.5) < 0.02
