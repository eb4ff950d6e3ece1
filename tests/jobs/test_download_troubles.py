"""A download tells the network's troubles, this machine's own and the server's apart."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from jobs.download import UnreachableError, fetch
from jobs.errors import WorkError
from tests.jobs.test_download import CONTENT, known, no_proxy
from tests.jobs.unsteady_server import Behaviour, serving

__all__ = ["no_proxy"]

QUICKLY = (0.01, 0.01, 0.01)


def without_network(monkeypatch: pytest.MonkeyPatch, *turns: OSError | None) -> None:
    """What becomes of each look-up of an address; the last one's lot is that of all that follow."""
    left = list(turns)
    look_up = socket.getaddrinfo

    def meet(*arguments: Any, **options: Any) -> Any:
        error = left.pop(0) if len(left) > 1 else left[0]
        if error is not None:
            raise error
        return look_up(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", meet)


NO_NAME = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
NO_ROUTE = OSError(errno.ENETUNREACH, "Network is unreachable")


def test_a_network_that_goes_and_comes_back_is_a_connection_that_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviour = Behaviour(CONTENT, breaks_after=[50_000])
    without_network(monkeypatch, None, NO_NAME, NO_ROUTE, None)

    with serving(behaviour) as address:
        fetch(known(address), tmp_path / "file.pth", pauses=QUICKLY)

    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert behaviour.asked == [None, "bytes=50000-"]


@pytest.mark.parametrize("error", [NO_NAME, NO_ROUTE])
def test_only_a_call_to_which_nothing_came_has_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    target = tmp_path / "file.pth"
    without_network(monkeypatch, None, error)

    with serving(Behaviour(CONTENT, breaks_after=[50_000])) as address:
        with pytest.raises(WorkError, match="50,000 bytes are kept for the next") as broken:
            fetch(known(address), target, pauses=QUICKLY)
        assert not isinstance(broken.value, UnreachableError)
        with pytest.raises(UnreachableError):
            fetch(known(address), target, pauses=QUICKLY)


@pytest.mark.parametrize("number", [errno.EISDIR, errno.ENOSPC])
def test_what_this_machine_s_disk_meets_is_not_the_network_s(tmp_path: Path, number: int) -> None:
    partial = tmp_path / "file.pth.partial"
    if number == errno.EISDIR:
        partial.mkdir()
    else:
        partial.symlink_to("/dev/full")
    behaviour = Behaviour(CONTENT)

    with serving(behaviour) as address, pytest.raises(OSError, match=os.strerror(number)):
        fetch(known(address), tmp_path / "file.pth", pauses=QUICKLY)

    assert len(behaviour.asked) == 1


def test_an_answer_of_unknown_length_is_held_against_what_is_known(tmp_path: Path) -> None:
    behaviour = Behaviour(CONTENT, tells_length=False)
    with serving(behaviour) as address:
        fetch(known(address), tmp_path / "file.pth", pauses=QUICKLY)
        assert (tmp_path / "file.pth").read_bytes() == CONTENT

        behaviour.content, behaviour.asked = b"please log in", []
        with pytest.raises(WorkError, match=f"what {address} sent has 13 bytes, not 300,000"):
            fetch(known(address), tmp_path / "other.pth", pauses=QUICKLY)

    assert behaviour.asked == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


def test_a_part_whose_whole_nobody_tells_may_break_off_too(tmp_path: Path) -> None:
    behaviour = Behaviour(CONTENT, breaks_after=[50_000, 70_000], tells_total=False)

    with serving(behaviour) as address:
        fetch(known(address), tmp_path / "file.pth", pauses=QUICKLY)

    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert behaviour.asked == [None, "bytes=50000-", "bytes=120000-"]
