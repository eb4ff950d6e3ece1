"""Saving while training goes on: the step pauses for a copy in memory, never for the disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from train import checkpoint
from train.checkpoint import Manifest

T = TypeVar("T")


class Saver:
    """Writes snapshots of the training state in a thread, one at a time.

    Args:
        folder: of the checkpoints.
        keep_last: newest checkpoints to keep, beside the best one.
        device: where the state lives.
        written_step: of the newest complete checkpoint, None for none.
    """

    def __init__(
        self, folder: Path, keep_last: int, device: torch.device, written_step: int | None
    ) -> None:
        self.folder = folder
        self.keep_last = keep_last
        self.written_step = written_step
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Manifest] | None = None
        self._step = 0

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._writing is not None and not self._writing.done()

    def start(self, state: dict[str, Any], score: float | None, before: Callable[[], None]) -> None:
        """Begin to write a copy of `state` as it is now; the one before must be collected.

        `before` is called in the thread first: what has to be on the disk before a checkpoint is.
        """
        assert self._writing is None, "one checkpoint at a time"
        # On a GPU a copy on the device takes a fraction of a step; a stream of its own then
        # carries it to the host while the next steps run.
        try:
            copy = map_tensors(lambda tensor: tensor.detach().clone(), state)
        except torch.OutOfMemoryError:  # a GPU that has no room for it: training waits
            copy = map_tensors(lambda tensor: tensor.detach().cpu(), state)
        ready = torch.cuda.current_stream().record_event() if self._stream else None
        self._step = state["step"]
        self._writing = self._thread.submit(self._write, copy, ready, score, before)

    def collect(self) -> str | None:
        """Wait for the write that is going on, if any; a warning if it failed."""
        writing, self._writing = self._writing, None
        if writing is None:
            return None
        try:
            self.written_step = writing.result().step
        except (OSError, RuntimeError) as error:
            kept = "there is none" if self.written_step is None else f"step {self.written_step}"
            return (
                f"the checkpoint of step {self._step} could not be written to {self.folder} "
                f"({cause_of(error)}); the newest complete one: {kept}"
            )
        return None

    def _write(
        self,
        state: dict[str, Any],
        ready: torch.cuda.Event | None,
        score: float | None,
        before: Callable[[], None],
    ) -> Manifest:
        before()
        if self._stream and ready:
            with torch.cuda.stream(self._stream):
                self._stream.wait_event(ready)
                state = map_tensors(lambda tensor: tensor.cpu(), state)
        return checkpoint.write(self.folder, state, score=score, keep_last=self.keep_last)


def cause_of(error: BaseException) -> str:
    """The operating system's words; torch hides them behind an error of its own."""
    inner: BaseException | None = error
    while inner:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__context__
    return str(error).splitlines()[0]


def map_tensors(change: Any, value: T) -> T:
    """`value`, nested dicts and lists of anything, with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)  # type: ignore[no-any-return]
    if isinstance(value, dict):
        return type(value)((key, map_tensors(change, item)) for key, item in value.items())
    if isinstance(value, list):
        return [map_tensors(change, item) for item in value]  # type: ignore[return-value]
    return value
