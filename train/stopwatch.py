"""Where the time of training steps goes, measured without making any step wait."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

# What may be in a step's account, in the order in which it is told.
PARTS = {
    "data": "data",
    "forward_backward": "forward and backward",
    "all_reduce": "all-reduce",
    "optimizer": "optimizer",
    "replay": "steps as a CUDA graph",
    "recording": "recording CUDA graphs",
}


class HostEvent:
    """A moment of the host's clock, with the methods of `torch.cuda.Event` that are used here."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def record(self) -> None:
        """Remember this moment."""
        self.seconds = time.perf_counter()

    def query(self) -> bool:
        """Whether the moment has come."""
        return True

    def elapsed_time(self, end: HostEvent) -> float:
        """Milliseconds until `end`."""
        return (end.seconds - self.seconds) * 1e3


class Stopwatch:
    """Times of the parts of steps, by a device's own clock.

    On a GPU a moment is an event in the stream of kernels: the host goes on at once, and asks how
    long it took only when somebody reads the times. What waits for the host counts as the part that
    it was late with.

    Args:
        device: what the steps run on.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_on_gpu = device.type == "cuda"
        self._is_running = False
        # A part's name with the moment of its end; None with a moment when nothing ended.
        self._moments: list[tuple[str | None, HostEvent | torch.cuda.Event]] = []

    def start(self) -> None:
        """The next part begins here."""
        self._is_running = True
        self._mark(None)

    def stop(self) -> None:
        """Laps are nothing until the next start: none may be recorded into a CUDA graph."""
        self._is_running = False

    def lap(self, part: str) -> None:
        """End `part`, which began with the start or the lap before."""
        if self._is_running:
            self._mark(part)

    def _mark(self, part: str | None) -> None:
        event = torch.cuda.Event(enable_timing=True) if self._is_on_gpu else HostEvent()
        event.record()
        self._moments.append((part, event))

    def read(self) -> dict[str, float]:
        """Seconds by part since the last reading; what the device is not done with comes later."""
        seconds: dict[str, float] = {}
        if not self._moments or not self._moments[-1][1].query():
            return seconds
        for (_, begin), (part, end) in zip(self._moments, self._moments[1:], strict=False):
            if part is not None:
                seconds[part] = seconds.get(part, 0.0) + begin.elapsed_time(end) / 1e3
        del self._moments[:-1]
        return seconds


def step_text(seconds: Mapping[str, float]) -> str:
    """How the time of steps was divided: 'data 1.2 %, forward and backward 95.1 %, ...'.

    Args:
        seconds: by part, as `Stopwatch.read` gives them; not all of them 0.
    """
    return shares({words: seconds[part] for part, words in PARTS.items() if part in seconds})


def run_text(seconds: Mapping[str, float]) -> str:
    """How the time of a run was divided, of which 'other' is votes and lines of the log.

    Args:
        seconds: by phase ('start', 'train', ...) and, of what is in 'train', by part
            ('train/data', ...).
    """
    parts = {words: seconds.get(f"train/{part}") for part, words in PARTS.items()}
    measured = {words: value for words, value in parts.items() if value is not None}
    named = {
        "start": seconds.get("start", 0.0),
        **measured,
        "evaluation": seconds.get("evaluate", 0.0),
        "checkpoints": seconds.get("checkpoint", 0.0),
        "other": max(0.0, seconds.get("train", 0.0) - sum(measured.values())),
    }
    return f"{sum(named.values()):.0f} s: {shares(named)}"


def shares(seconds: Mapping[str, float]) -> str:
    """Names with their percentages of the sum, which is above 0."""
    total = sum(seconds.values())
    return ", ".join(f"{name} {100 * value / total:.1f} %" for name, value in seconds.items())
