"""The step against the peers' steps: every size has its rows, and a ratio is that of the times."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from benchmarks import peers
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
