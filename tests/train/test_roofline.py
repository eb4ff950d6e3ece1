"""The memory-bandwidth roofline: what an image moves, and how fast each device can."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from train.roofline import (
    TIERS,
    bytes_per_image,
    bytes_per_second,
    images_per_second_at_roofline,
    values_of,
    values_per_image,
)


@pytest.mark.parametrize(("tier", "megabytes"), [("eager", 469), ("compiled", 345), ("fused", 226)])
def test_bytes_are_those_of_an_independent_count_at_224(tier: str, megabytes: float) -> None:
    """Counted kernel by kernel before this code was written, small passes less exactly."""
    assert bytes_per_image("imagenet", 224, tier=tier) / 1e6 == pytest.approx(megabytes, rel=0.02)


def test_every_layer_of_the_network_is_counted_once() -> None:
    """By hand, from the widths and sides of He et al. 2015 (arXiv 1512.03385), table 1."""
    sides, widths, depths = (56, 28, 14, 7), (64, 128, 256, 512), (3, 4, 6, 3)
    stem, pooled, images = 64 * 112**2, 64 * 56**2, 3 * 224**2
    inputs, outputs, relus, joined = images, stem, stem, 0
    size, side_before, channels = pooled, 56, 64
    for side, width, depth in zip(sides, widths, depths, strict=True):
        for block in range(depth):
            first = width * (side_before if block == 0 else side) ** 2
            second, third = width * side**2, 4 * width * side**2
            inputs += size + first + second
            outputs += first + second + third
            relus += first + second + third
            joined += 3 * third + 3 * size
            if block == 0:
                inputs, outputs = inputs + size, outputs + third
            size, channels = third, 4 * width
        side_before = side
    pooling = 2 * (stem + pooled) + 2 * (size + channels)
    convolutions = 3 * (inputs + outputs) - images - stem

    assert 2 * outputs == 22_227_968  # bytes in bf16
    expected = convolutions + 8 * outputs + 5 * relus + joined + pooling
    assert values_per_image("imagenet", 224)["eager"] == expected


def test_each_kind_of_layer_moves_what_the_table_says() -> None:
    block, widening = Bottleneck(8, 2), Bottleneck(8, 2, downsample=nn.Identity())
    kinds = [nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU(), block, widening, nn.MaxPool2d(2)]

    assert [values_of(module, 10, 100) for module in [*kinds, nn.Flatten()]] == [
        [330, 330, 330],
        [800, 700, 200],
        [500, 100, 0],
        [330, 130, 310],
        [330, 30, 310],
        [220, 220, 220],
        [0, 0, 0],
    ]


def test_fp32_moves_twice_as_much_and_the_fused_tier_least() -> None:
    for tier in TIERS:
        half = bytes_per_image("cifar", 32, torch.bfloat16, tier)
        assert bytes_per_image("cifar", 32, torch.float32, tier) == 2 * half
    eager, compiled, fused = (bytes_per_image("cifar", 32, tier=tier) for tier in TIERS)
    assert eager > compiled > fused


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("Tesla V100-SXM2-32GB", 900),
        ("A100-SXM4-40GB", 1555),
        ("NVIDIA A100-PCIE-40GB", 1555),
        ("NVIDIA A100 80GB PCIe", 1935),
        ("NVIDIA A100-SXM4-80GB", 2039),
        ("NVIDIA H100 80GB HBM3", 3350),
        ("NVIDIA H100 PCIe", 2000),
        ("NVIDIA H200", 4800),
        ("NVIDIA B200", 8000),
        ("NVIDIA L40S", 864),
        ("NVIDIA GeForce RTX 3090", 936),
        ("NVIDIA GeForce RTX 4090", 1008),
    ],
)
def test_known_devices_have_their_data_sheets_bandwidth(name: str, gigabytes: float) -> None:
    assert bytes_per_second(name) == gigabytes * 1e9


@pytest.mark.parametrize(
    "name", ["cpu", "", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA GeForce RTX 4090 Laptop GPU"]
)
def test_nothing_is_said_of_other_devices_not_even_of_slices_of_known_ones(name: str) -> None:
    assert images_per_second_at_roofline("imagenet", 224, name) is None


def test_speed_at_the_roofline_is_bandwidth_over_bytes() -> None:
    speed = images_per_second_at_roofline("imagenet", 224, "NVIDIA H200", tier="compiled")

    assert speed == 4.8e12 / bytes_per_image("imagenet", 224, torch.bfloat16, "compiled")
    assert speed == pytest.approx(13_900, rel=0.02)
