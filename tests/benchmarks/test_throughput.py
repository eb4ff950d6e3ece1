"""The step against the peers' steps: every size has its rows, and a ratio is that of the times."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import peers, roofline
from benchmarks.timing import in_turn, ratio

SMALL = ("--resolutions", "32", "--batch-sizes", "4", "--rounds", "2", "--block-seconds", "0")


def test_every_size_is_measured_with_every_rival(measure: Callable[..., Any]) -> None:
    printed, found = measure("throughput", *SMALL, "--device", "cpu")

    assert [result["data"] for result in found["results"]] == ["synthetic", "real"]
    assert found["device"].startswith("CPU (")
    assert found["threads"] == 1
    for result in found["results"]:
        assert set(result["rivals"]) == {"ours", "torchvision", "timm"}
        assert result["precision"] == "fp32"
        assert result["rivals"]["ours"]["seconds_over_ours"] == [1, 1, 1]
        assert "the device is a CPU" in result["rivals"]["ours"]["remark"]
        theirs = result["rivals"]["torchvision"]
        assert theirs["images_per_second"] == pytest.approx(4e3 / theirs["milliseconds"], rel=1e-2)
        middle, least, most = theirs["seconds_over_ours"]
        assert 0 < least <= middle <= most
        if not find_spec("timm"):
            assert result["rivals"]["timm"] == {"remark": "not installed"}
        assert f"{theirs['images_per_second']:.1f}" in printed
    assert "real, 32 x 4" in printed


def test_rivals_take_turns_in_both_orders() -> None:
    calls: list[str] = []

    def arm(name: str, seconds: float) -> Callable[[], float]:
        def call() -> float:
            calls.append(name)
            return seconds * len(calls)

        return call

    seconds = in_turn({"a": arm("a", 1.0), "b": arm("b", 2.0)}, rounds=3)

    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert seconds == {"a": [1.0, 4.0, 5.0], "b": [4.0, 6.0, 12.0]}
    found = ratio(seconds["b"], seconds["a"])
    assert (found.median, found.least, found.most) == (2.4, 1.5, 4.0)


def test_the_peers_count_hits_as_they_publish() -> None:
    output = torch.tensor([[3.0, 2, 1, 0], [0, 1, 2, 3], [1, 3, 0, 2], [0, 1, 3, 2]])

    first, second = peers.hits_percent(output, torch.tensor([0, 2, 3, 0]), (1, 2))

    assert (first.item(), second.item()) == (25.0, 75.0)


def test_the_bytes_of_the_roofline_are_those_of_the_layers() -> None:
    """Without fusion each feature map is moved some twenty times, and each tier moves less."""
    from configs.schema import Model
    from train.model import build_model

    sizes: list[int] = []
    model = build_model(Model(), seed=0).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, output: sizes.append(output.numel()))
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))

    convolutions_mb = 2e-6 * sum(sizes) * (224 / 64) ** 2  # bf16
    assert convolutions_mb == pytest.approx(22.2, abs=0.1)
    eager, compiled, fused = roofline.MEGABYTES.values()
    assert 20 * convolutions_mb < eager < 22 * convolutions_mb
    assert eager > compiled > fused > 10 * convolutions_mb


def test_the_limit_falls_with_the_pixels_and_knows_only_known_devices() -> None:
    h200 = roofline.find("NVIDIA H200")
    assert h200
    assert roofline.find("NVIDIA GeForce RTX 3090") is None

    at_224 = roofline.images_per_second(h200, 224, "eager")
    assert at_224 == pytest.approx(4.3e6 / 469)
    assert roofline.images_per_second(h200, 112, "eager") == pytest.approx(4 * at_224)
