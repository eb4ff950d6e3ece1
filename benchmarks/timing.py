"""Times of rivals, taken in turn, and their ratios: a machine that slows down slows them all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ratio:
    """How often A's time goes into B's: the median over the rounds, and the extremes."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Ratio:
    """Their seconds over ours, round by round."""
    found = [a / b for a, b in zip(theirs, ours, strict=True)]
    return Ratio(statistics.median(found), min(found), max(found))


def in_turn(arms: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The seconds that each arm says it took, once a round; A B, B A, A B, ...

    The order turns around, so that none always comes after the same other one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        names = list(arms)
        for name in names if number % 2 == 0 else reversed(names):
            seconds[name].append(arms[name]())
    return seconds


def wait_for(device: torch.device) -> None:
    """Return when all that was given to `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_call(
    work: Callable[[], object], calls: int, device: torch.device, warm_up: int = 1
) -> float:
    """Mean seconds of `calls` calls in a row, of which only the end waits for the device."""
    for _ in range(warm_up):
        work()
    wait_for(device)
    began = time.perf_counter()
    for _ in range(calls):
        work()
    wait_for(device)
    return (time.perf_counter() - began) / calls
