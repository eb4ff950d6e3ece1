"""Mixup and cutmix, against the papers' formulas written out image by image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.schema import Data
from tests.train.steps import waiting_refused
from tests.train.test_batches import MIXED, batches
from train.batches import TrainBatches, derive_seed
from train.cache import Split
from train.images import to_input
from train.loss import smoothed_cross_entropy
from train.mixing import draw_keep

STEPS = 400


def seen(source: TrainBatches, index: int, offset: Tensor, is_flipped: Tensor) -> np.ndarray:
    """One image of the data set as a batch shows it, by slicing."""
    padded = np.pad(source.split.images[index].numpy(), ((4, 4), (4, 4), (0, 0)))
    top, left = offset.tolist()
    cut = padded[top : top + 32, left : left + 32]
    return cut[:, ::-1] if is_flipped else cut


def published(seed: int, data: Data) -> tuple[float, tuple[slice, slice]]:
    """The share and the box of the papers' code, from the same random numbers.

    The box of mixup is all of the image, that of a clean batch has a share of 1.
    """
    chance = np.random.default_rng(seed)
    everything = (slice(0, 32), slice(0, 32))
    is_mixed = chance.random() < data.mix_probability
    if data.cutmix and (not data.mixup or chance.random() < 0.5):
        if not is_mixed:
            return 1.0, everything
        size = int(32 * math.sqrt(1 - chance.beta(data.cutmix, data.cutmix)))
        y, x = chance.integers(32), chance.integers(32)
        return 0.0, (
            slice(np.clip(y - size // 2, 0, 32), np.clip(y + size // 2, 0, 32)),
            slice(np.clip(x - size // 2, 0, 32), np.clip(x + size // 2, 0, 32)),
        )
    return chance.beta(data.mixup, data.mixup) if is_mixed else 1.0, everything


@pytest.mark.parametrize(
    "data",
    [
        {"mixup": 0.2},
        {"cutmix": 1.0},
        {"mixup": 0.2, "cutmix": 1.0},
        {"mixup": 1.0, "cutmix": 0.5, "mix_probability": 0.5},
    ],
    ids=str,
)
def test_a_batch_is_what_a_loop_over_its_images_makes(data: dict[str, float]) -> None:
    """Grey levels and labels of 20 batches, an image and a partner at a time."""
    source = batches(**data, mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0])
    for step in range(20):
        draw = source.draw(step)
        images, targets = source(step)
        rows = torch.randperm(
            24, generator=torch.Generator().manual_seed(derive_seed(3, "partners", step))
        )
        share, box = published(derive_seed(3, "mixing", step), source.data)
        keep = np.ones((32, 32, 1))
        keep[box] = share
        for row, partner in enumerate(rows.tolist()):
            mine, other = (
                seen(source, int(draw.indices[at]), draw.offsets[at], draw.flips[at])
                for at in (row, partner)
            )
            expected = keep * mine + (1 - keep) * other
            off = np.abs(images[row].permute(1, 2, 0).numpy() - expected)
            assert off.max() < (1e-4 if 0 < share < 1 else 1e-30)
            label = np.zeros(100)
            label[draw.indices[row]] += keep.mean()
            label[draw.indices[partner]] += 1 - keep.mean()
            assert np.allclose(targets[row].numpy(), label, rtol=0, atol=1e-7)


def test_label_weights_are_the_real_areas_of_the_box_and_sum_to_1() -> None:
    source = batches(cutmix=1.0)
    areas = []
    for step in range(STEPS):
        draw = source.draw(step)
        area = int((draw.keep == 0).sum())  # of 1,024, so exact in float32
        _, targets = source.render(draw, 8)

        assert float(draw.label_weight) == 1 - area / 1024
        assert (targets.sum(dim=1) == 1).all()
        areas.append(area)
    assert min(areas) == 0
    assert max(areas) > 800


def test_draws_are_mixed_as_often_as_the_recipe_says() -> None:
    """Half of the batches stay clean; of the others half are cut and half are blended."""
    source = batches(mixup=0.5, cutmix=1.0, mix_probability=0.5)
    kinds = {"clean": 0, "cut": 0, "blended": 0}
    blends = []
    for step in range(STEPS):
        levels = source.draw(step).keep.unique()
        if len(levels) == 1 and 0 < levels[0] < 1:
            kinds["blended"] += 1
            blends.append(float(levels[0]))
        else:
            # A box of no pixel counts as clean here.
            kinds["clean" if levels.tolist() == [1.0] else "cut"] += 1

    assert kinds["clean"] == pytest.approx(STEPS / 2, abs=35)
    assert kinds["cut"] == pytest.approx(STEPS / 4, abs=35)
    assert kinds["blended"] == pytest.approx(STEPS / 4, abs=35)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)): 1/8 here.
    assert np.mean(blends) == pytest.approx(0.5, abs=0.1)
    assert np.var(blends) == pytest.approx(1 / 8, abs=0.04)


def test_mixing_changes_neither_order_nor_crops_nor_flips_and_ends_where_it_should() -> None:
    """The last fifth of the run is bit for bit that of the recipe without it."""
    plain, mixed = batches(epochs=4), batches(epochs=4, **MIXED)  # 20 steps
    is_other = []
    for step in range(20):
        for name, part in plain.draw(step).named_parts():
            assert torch.equal(getattr(mixed.draw(step), name), part)
        (images, labels), (others, targets) = plain(step), mixed(step)
        is_other.append(not torch.equal(images, others))
        if step >= 16:
            assert torch.equal(targets, torch.eye(100)[labels])

    assert is_other[16:] == [False] * 4
    assert sum(is_other[:16]) >= 12  # a small box or a share near 1 may change next to nothing


def test_mixup_before_the_resize_is_mixup_of_what_the_network_sees() -> None:
    """Within a grey level, which is what Pillow's way rounds each of the two by."""
    source = batches(mixup=1.0)
    draw = source.draw(0)
    images, _ = source.render(draw, 48)
    mine = source.view(draw.indices, draw.offsets, draw.flips)
    other = source.view(draw.partner_indices, draw.partner_offsets, draw.partner_flips)
    share = float(draw.label_weight)
    assert 0.01 < share < 0.99

    after = share * to_input(mine, source.data, 48) + (1 - share) * to_input(other, source.data, 48)
    assert (images - after).abs().max() < 1.01 / min(source.data.std)
    after = share * to_input(mine.float(), source.data, 48) + (1 - share) * to_input(
        other.float(), source.data, 48
    )
    assert torch.allclose(images, after, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_that_of_both_labels_by_their_weights(smoothing: float) -> None:
    """And so the cross-entropy with soft targets, written out."""
    source = batches(cutmix=1.0)
    logits = torch.randn(24, 100, generator=torch.Generator().manual_seed(0))
    for step in range(10):
        draw = source.draw(step)
        _, targets = source.render(draw, 8)
        loss = smoothed_cross_entropy(logits, targets, smoothing)

        mine, other = (
            smoothed_cross_entropy(logits, labels, smoothing)
            for labels in (draw.indices, draw.partner_indices)
        )
        assert loss == pytest.approx(
            float(draw.label_weight * mine + (1 - draw.label_weight) * other), rel=1e-6
        )
        soft = (1 - smoothing) * targets + smoothing / 100
        assert loss == pytest.approx(
            float(-(soft * logits.log_softmax(dim=1)).sum(dim=1).mean()), rel=1e-6
        )


def test_least_alpha_still_draws_shares() -> None:
    data = Data(mixup=0.001)
    shares = [draw_keep(data, 2, 2, np.random.default_rng(seed)) for seed in range(100)]

    assert all(torch.isfinite(share).all() for share in shares)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_mixes_a_batch_without_waiting() -> None:
    source = batches(**MIXED)
    device = torch.device("cuda")
    expected = source(0)
    source.split = Split(source.split.images.to(device), source.split.labels.to(device))
    draw = source.share(0).to(device)
    source.render(draw, 32)
    with waiting_refused():
        found = source.render(draw, 32)

    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(mine.cpu(), theirs, atol=1e-4)
