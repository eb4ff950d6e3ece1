"""What a save costs, at the real size of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.checkpoint import WORDS


def test_pause_write_and_resume_are_timed(measure: Callable[..., Any]) -> None:
    sizes = ("--resolution=32", "--batch-size=4", "--rounds=1", "--steps=1")
    printed, found = measure("checkpoint", *sizes)

    # Weights and momentum of 23,528,522 parameters, and the statistics of the norms twice.
    assert 188_228_176 < found["bytes"] < 190_000_000
    times = found["times"]
    assert list(times) == list(WORDS)
    for key, row in times.items():
        assert 0 < row["median_ms"] <= row["most_ms"]
        assert f"{row['median_ms']:.2f}" in printed, key
    assert times["step"]["steps"] == 1
    assert times["pause"]["median_ms"] < times["on the disk"]["median_ms"]
    assert "189 MB" in printed
