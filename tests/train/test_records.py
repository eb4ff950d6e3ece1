"""Lines and events while another thread makes sure of them, as a checkpoint's does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from train.records import Board, Lines

ROW = {"mode": "train", "step": 1, "loss": 0.5}


class Held:
    """Stands before a call, which goes on or fails when it is told to."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self.error: OSError | None = None

    def __call__(self, *arguments: Any) -> Any:
        self.begun.set()
        assert self.goes_on.wait(10)
        if self.error:
            raise self.error
        return self.call(*arguments)


class File:
    """An open file whose writes are held."""

    def __init__(self, file: Any) -> None:
        self.fileno = file.fileno
        self.close = file.close
        self.write = Held(file.write)


@pytest.fixture(params=["lines", "events"])
def record(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Lines | Board, Held]:
    """A record and what holds its writing."""
    if request.param == "lines":
        lines = Lines(tmp_path / "metrics.jsonl")
        lines.file = File(lines.file)  # type: ignore[assignment]
        return lines, lines.file.write  # type: ignore[return-value]
    board = Board(tmp_path / "tensorboard", 0)
    held = Held(board.open().flush)
    board.open().flush = held  # type: ignore[method-assign]
    return board, held


def test_what_is_being_written_is_not_held_back(record: tuple[Lines | Board, Held]) -> None:
    lines, held = record
    writing = threading.Thread(target=lines.write, args=(ROW,))
    writing.start()
    assert held.begun.wait(10)

    lines.sync()

    held.goes_on.set()
    writing.join()
    lines.close()


def test_what_could_not_be_written_is_held_back_until_it_is(
    record: tuple[Lines | Board, Held],
) -> None:
    lines, held = record
    held.goes_on.set()
    held.error = OSError(28, "No space left on device")
    assert "No space left" in (lines.write(ROW) or "")
    with pytest.raises(OSError, match="held back"):
        lines.sync()

    held.error = None
    assert lines.write(ROW | {"step": 2}) is None

    lines.sync()
    lines.close()
