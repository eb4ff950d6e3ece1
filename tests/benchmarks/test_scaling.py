"""Ranks on this machine are measured; what more would bring is computed, and says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.scaling_model import (
    LINKS,
    PARAMETERS,
    Assumptions,
    all_reduce_seconds,
    efficiency,
    falls_below,
    fixed_batch,
    seen_seconds,
)

IB, ETHERNET = LINKS["ib-400"], LINKS["eth-100"]
FP32 = 4.0 * PARAMETERS
GIVEN = Assumptions()


def test_ranks_are_measured_against_one(measure: Callable[..., Any]) -> None:
    sizes = ("--resolution=32", "--batch-size=4", "--steps=1", "--rounds=2")
    printed, found = measure("scaling", "--ranks", "1", "2", *sizes, "--set=train.device=cpu")

    assert list(found["measured"]) == ["1", "2", "2 alone"]
    assert found["measured"]["1"]["of_n_times_one"] == [1, 1, 1]
    for row in found["measured"].values():
        middle, least, most = row["of_n_times_one"]
        assert 0 < least <= middle <= most
        assert f"{row['images_per_second']:.2f}" in printed
    [model, _] = found["computed_not_measured"]
    assert model["gradient_mb"] == {"fp32": 94.1, "bf16": 47.1}
    one = found["measured"]["1"]["images_per_second"]
    assert model["step_ms"] == pytest.approx(4e3 / one, rel=1e-2)
    assert printed.count("computed, not measured") == 2
    assert "taken for granted" in printed


def test_two_gpus_of_a_node_send_each_byte_once_at_the_links_rate() -> None:
    """2 (N - 1) / N is 1: both ways to sum are the same there."""
    expected = FP32 / 350e9 + 2 * IB.inside_latency

    for way in ("ring", "hierarchical"):
        assert all_reduce_seconds(IB, 2, FP32, way) == pytest.approx(expected)


def test_a_ring_over_nodes_is_as_slow_as_their_ports() -> None:
    seconds = all_reduce_seconds(ETHERNET, 16, FP32, "ring")

    hops = 14 * ETHERNET.inside_latency + 2 * ETHERNET.outside_latency
    assert seconds == pytest.approx(2 * 15 / 16 * (FP32 / 11.25e9 + hops))
    # A ring's latency grows with the GPUs, that of halving and doubling with their logarithm.
    many = [all_reduce_seconds(ETHERNET, 1024, 1.0, way) for way in ("ring", "hierarchical")]
    assert many[0] > 10 * many[1]


def test_nodes_sum_inside_then_halve_and_double_between_themselves() -> None:
    seconds = all_reduce_seconds(ETHERNET, 32, FP32, "hierarchical")

    inside = 7 / 8 * FP32 / 350e9 + 7 * ETHERNET.inside_latency
    between = 3 / 4 * FP32 / 11.25e9 + 2 * ETHERNET.outside_latency
    assert seconds == pytest.approx(2 * (inside + between))


def test_only_what_the_backward_pass_does_not_hide_is_seen() -> None:
    hidden = 0.9 * 2 / 3 * 0.015

    assert seen_seconds(hidden / 2, 0.015, GIVEN) == pytest.approx(hidden / 2 * GIVEN.last_bucket)
    assert seen_seconds(hidden + 0.01, 0.015, GIVEN) == pytest.approx(0.01)


def test_efficiency_falls_with_the_gpus_and_the_limits_are_where_it_does() -> None:
    def of(gpus: int) -> float:
        return efficiency(0.015, ETHERNET, gpus, FP32, "ring", GIVEN)

    values = [of(2**power) for power in range(3, 11)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.99  # one node, no Ethernet
    first = falls_below(0.5, of)
    assert isinstance(first, int)
    assert of(first) < 0.5 <= of(first // 2)
    assert falls_below(0.0, of) == "never"
    assert falls_below(0.0, lambda gpus: of(gpus) if gpus < 64 else math.nan) == "-"


def test_a_batch_that_all_gpus_share_stops_scaling_at_the_least_step() -> None:
    given = Assumptions(least_step_s=0.005)

    speeds = [n * fixed_batch(0.015, 128, 1024, IB, n, FP32, given) for n in (8, 32, 128, 512)]
    assert speeds[0] == pytest.approx(8, rel=0.05)
    assert speeds[2] == pytest.approx(1024 / 128 * 0.015 / 0.005, rel=0.1)
    assert math.isclose(speeds[3], speeds[2], rel_tol=0.05)
