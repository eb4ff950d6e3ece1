"""The order of images and their augmentation: functions of (seed, step), not of the hardware."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from configs import load_recipe
from configs.schema import Data, Model, Recipe, Run, Schedule, Train
from train.batches import TrainBatches
from train.cache import Split

MIXED = {"mixup": 0.2, "cutmix": 1.0, "mix_until": 0.8}


def batches(
    rank: int = 0,
    world_size: int = 1,
    *,
    images: int = 100,
    seed: int = 3,
    epochs: int = 80,
    phases: Sequence[tuple[float, int]] = (),
    **data: Any,
) -> TrainBatches:
    pixels = torch.randint(
        256, (images, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    recipe = Recipe(
        run=Run(seed=seed),
        data=Data(resolution=32, **data),
        model=Model(num_classes=images),
        schedule=Schedule(epochs=epochs, resolution=list(phases)),
        train=Train(batch_size=24),
    )
    labels = torch.arange(images)
    return TrainBatches(Split(pixels, labels), recipe, rank=rank, world_size=world_size)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        (
            "finetune.yaml",
            "a5d8085348e588df441f6ba74561fa7d1c4426b4996d78aefaa79c66a655a68c",
        ),
        (
            "scratch.yaml",
            "494cad9326c40f9937827fcab6402c982bb4132fea7fafb3f2525ca347d9e589",
        ),
    ],
)
def test_the_notes_recipes_see_what_they_saw_before_there_were_switches(
    name: str, digest: str
) -> None:
    """Draws, pixels and labels, to the last bit, as recorded before mixing and phases came."""
    pixels = (torch.arange(300 * 32 * 32 * 3) * 7919 % 251).to(torch.uint8).view(300, 32, 32, 3)
    split = Split(pixels, torch.arange(300) % 10)
    source = TrainBatches(split, load_recipe(name).recipe, rank=0, world_size=1)
    found = hashlib.sha256()
    for step in (0, 7):
        draw = source.draw(step)
        assert len(draw.parts()) == 4
        for part in (draw.indices, draw.offsets, draw.flips, *source(step)):
            found.update(part.contiguous().numpy().tobytes())

    assert found.hexdigest() == digest


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("data", [{}, MIXED], ids=["plain", "mixed"])
def test_any_number_of_ranks_sees_the_same_batches(world_size: int, data: dict[str, Any]) -> None:
    """Pixels and labels of the ranks' shares, put together, are the batch of one rank."""
    alone = batches(**data)
    shares = [batches(rank, world_size, **data) for rank in range(world_size)]

    for step in range(12):
        images, labels = alone(step)
        parts = [share(step) for share in shares]
        assert torch.equal(torch.cat([part[0] for part in parts]), images)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)


def test_batch_is_a_function_of_the_step_alone() -> None:
    """A run that goes on after step 7 sees what the run from the start sees."""
    from_the_start, resumed = batches(**MIXED), batches(**MIXED)
    for step in range(7):
        from_the_start(step)

    for mine, theirs in zip(from_the_start(7), resumed(7), strict=True):
        assert torch.equal(mine, theirs)


def test_a_draw_takes_over_all_of_another_in_its_own_tensors() -> None:
    """As a recorded step needs it, which reads the same tensors again and again."""
    source = batches(**MIXED)
    drawn = source.draw(0).to(torch.device("cpu"))
    places = [part.data_ptr() for part in drawn.parts()]
    drawn.fill(source.draw(1))

    assert len(drawn.parts()) == 9
    assert [part.data_ptr() for part in drawn.parts()] == places
    for mine, theirs in zip(drawn.parts(), source.draw(1).parts(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("epochs", "phases", "runs"),
    [
        (2, [], [(32, 10)]),
        (2, [(0.4, 16), (0.8, 24)], [(16, 4), (24, 4), (32, 2)]),
        (4, [(0.4, 16), (0.8, 24)], [(16, 8), (24, 8), (32, 4)]),
        (20, [(0.07, 16), (0.29, 24)], [(16, 7), (24, 22), (32, 71)]),
        (2, [(0.04, 16), (0.5, 40)], [(40, 5), (32, 5)]),
    ],
)
def test_resolution_changes_at_its_share_of_the_steps_and_ends_at_that_of_the_test_images(
    epochs: int, phases: list[tuple[float, int]], runs: list[tuple[int, int]]
) -> None:
    """Sides in pixels, each with its number of steps; 0.07 of 100 is not 7 in floats."""
    source = batches(epochs=epochs, phases=phases)
    sides = [source.resolution(step) for step in range(source.total_steps)]

    assert [(side, len(list(steps))) for side, steps in itertools.groupby(sides)] == runs
    first, last = source(0)[0], source(source.total_steps - 1)[0]
    assert first.shape == (24, 3, runs[0][0], runs[0][0])
    assert last.shape == (24, 3, 32, 32)


def test_a_share_of_the_run_is_one_of_the_steps_that_a_limit_leaves() -> None:
    recipe = Recipe(train=Train(batch_size=10, max_steps=7))
    split = Split(torch.zeros(20, 32, 32, 3, dtype=torch.uint8), torch.zeros(20).long())

    assert TrainBatches(split, recipe, rank=0, world_size=1).total_steps == 7


def test_epoch_sees_every_image_and_fills_up_its_last_batch() -> None:
    source = batches()
    seen = torch.cat([source.draw(step).indices for step in range(5)])

    assert source.steps_per_epoch == 5
    assert torch.equal(seen[:100].sort().values, torch.arange(100))
    assert torch.equal(seen[100:], seen[:20])
