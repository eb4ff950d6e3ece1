"""A disk that is full when an attempt starts: it waits for room, then leaves with a word."""

from __future__ import annotations

import os

import pytest

from jobs import space
from jobs.errors import RequestError
from jobs.rundir import RunDirectory


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The error numbers that the next writes meet."""
    left: list[int] = []

    def fsync(_: int) -> None:
        if left:
            raise OSError(left.pop(), "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(space, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(space, "PATIENCE_SECONDS", 0.2)
    return left


@pytest.mark.parametrize("number", [28, 122])
def test_an_attempt_waits_for_room_and_then_starts(
    run: RunDirectory, full: list[int], number: int
) -> None:
    full += [number] * 3

    space.await_room(run, lambda: False)

    assert full == []
    assert list(run.engine_files.iterdir()) == []


def test_a_disk_that_stays_full_ends_the_start_with_the_way_to_go_on(
    run: RunDirectory, full: list[int]
) -> None:
    full += [28] * 1000

    with pytest.raises(RequestError, match=r"No space left on device; make room, .* resume"):
        space.await_room(run, lambda: False)


def test_a_start_that_is_asked_to_stop_does_not_wait_for_room(
    run: RunDirectory, full: list[int]
) -> None:
    full += [28] * 1000

    space.await_room(run, lambda: True)


def test_another_error_of_the_disk_is_not_waited_for(run: RunDirectory, full: list[int]) -> None:
    full += [5]

    with pytest.raises(OSError, match="No space"):
        space.await_room(run, lambda: False)
