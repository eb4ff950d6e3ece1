"""A download is whole and right or not there, and goes on where it broke off."""

from __future__ import annotations

import hashlib
import multiprocessing
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from jobs import download
from jobs.download import UnreachableError, fetch
from jobs.errors import WorkError
from jobs.sources import Source
from tests.jobs.unsteady_server import Behaviour, serving

CONTENT = b"".join(hashlib.sha256(bytes([n])).digest() * 2_000 for n in range(5))[:300_000]
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICKLY = (0.01, 0.01)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def known(address: str, size: int | None = len(CONTENT)) -> Source:
    return Source("file.pth", address, size, SHA256)


def test_a_file_comes_whole(tmp_path: Path) -> None:
    with serving(Behaviour(CONTENT)) as address:
        facts = fetch(known(address), tmp_path / "file.pth")

    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert facts[:2] == (len(CONTENT), SHA256)
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


def test_broken_connections_are_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    behaviour = Behaviour(CONTENT, breaks_after=[50_000, 0, 100_000])

    with serving(behaviour) as address:
        fetch(known(address), tmp_path / "file.pth", pauses=QUICKLY)

    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert behaviour.asked == [None, "bytes=50000-", "bytes=50000-", "bytes=150000-"]
    assert "the connection broke after 50,000 of 300,000; again in 0 s" in capsys.readouterr().err


def test_a_later_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behaviour = Behaviour(CONTENT, breaks_after=[70_000, 0, 0, 0])
    target = tmp_path / "file.pth"

    with serving(behaviour) as address:
        with pytest.raises(WorkError, match="70,000 bytes are kept for the next try"):
            fetch(known(address), target, pauses=QUICKLY)
        assert not target.exists()
        behaviour.breaks_after, behaviour.asked = [], []
        fetch(known(address), target)

    assert target.read_bytes() == CONTENT
    assert behaviour.asked == ["bytes=70000-"]


def test_a_file_that_changed_meanwhile_begins_anew(tmp_path: Path) -> None:
    behaviour = Behaviour(CONTENT[::-1], breaks_after=[70_000, 0, 0, 0])
    target = tmp_path / "file.pth"

    with serving(behaviour) as address:
        with pytest.raises(WorkError):
            fetch(known(address), target, pauses=QUICKLY)
        behaviour.content, behaviour.tag, behaviour.breaks_after = CONTENT, '"two"', []
        fetch(known(address), target)

    assert target.read_bytes() == CONTENT


def test_a_wrong_beginning_is_fetched_once_more(tmp_path: Path) -> None:
    """The server gives another file the same tag."""
    behaviour = Behaviour(CONTENT[::-1], breaks_after=[70_000, 0, 0, 0])
    target = tmp_path / "file.pth"

    with serving(behaviour) as address:
        with pytest.raises(WorkError):
            fetch(known(address), target, pauses=QUICKLY)
        behaviour.content, behaviour.breaks_after, behaviour.asked = CONTENT, [], []
        fetch(known(address), target)

    assert target.read_bytes() == CONTENT
    assert behaviour.asked == ["bytes=70000-", None]


@pytest.mark.parametrize("plan", [{"has_ranges": False}, {"tag": None}, {"tag": 'W/"weak"'}])
def test_without_ranges_or_a_way_to_know_the_file_it_begins_anew(
    tmp_path: Path, plan: dict[str, Any]
) -> None:
    behaviour = Behaviour(CONTENT, breaks_after=[50_000], **plan)

    with serving(behaviour) as address:
        fetch(known(address), tmp_path / "file.pth", pauses=QUICKLY)

    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_a_server_that_always_begins_anew_and_breaks_is_given_up(tmp_path: Path) -> None:
    behaviour = Behaviour(CONTENT, has_ranges=False, breaks_after=[50_000] * 99)

    with serving(behaviour) as address, pytest.raises(WorkError, match="the connection broke"):
        fetch(known(address), tmp_path / "file.pth", pauses=QUICKLY)

    assert len(behaviour.asked) == 1 + len(QUICKLY)


def test_another_part_than_the_one_asked_for_is_not_taken(tmp_path: Path) -> None:
    behaviour = Behaviour(CONTENT, breaks_after=[50_000], shifts_ranges=True)

    with serving(behaviour) as address:
        fetch(known(address), tmp_path / "file.pth", pauses=QUICKLY)

    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert behaviour.asked == [None, "bytes=50000-", None]


def test_what_had_come_whole_is_not_fetched_again(tmp_path: Path) -> None:
    behaviour = Behaviour(CONTENT)
    target = tmp_path / "file.pth"
    with serving(behaviour) as address:
        source = known(address, size=None)
        fetch(source, target)
        # Killed before the file had its name.
        target.rename(tmp_path / "file.pth.partial")
        (tmp_path / "file.pth.partial.json").write_text(
            f'{{"address": "{address}", "validator": "\\"one\\""}}'
        )
        fetch(source, target)

    assert target.read_bytes() == CONTENT
    assert behaviour.asked == [None, "bytes=300000-"]


def test_wrong_bytes_never_get_the_name(tmp_path: Path) -> None:
    with (
        serving(Behaviour(CONTENT[::-1])) as address,
        pytest.raises(WorkError, match=f"what {address} sent has SHA-256 .*, not {SHA256[:16]}"),
    ):
        fetch(known(address), tmp_path / "file.pth")

    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_is_refused_before_it_comes(tmp_path: Path) -> None:
    """A proxy's login page, for one."""
    with (
        serving(Behaviour(b"please log in")) as address,
        pytest.raises(WorkError, match="offers 13 bytes, and it has 300,000"),
    ):
        fetch(known(address), tmp_path / "file.pth")

    assert list(tmp_path.iterdir()) == []


def test_a_length_that_is_not_true_is_not_believed(tmp_path: Path) -> None:
    behaviour = Behaviour(CONTENT, claimed_size=len(CONTENT) - 5)

    with serving(behaviour) as address, pytest.raises(WorkError, match="has SHA-256"):
        fetch(known(address, size=None), tmp_path / "file.pth", pauses=QUICKLY)

    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_gone_is_not_tried_again(tmp_path: Path) -> None:
    behaviour = Behaviour(CONTENT, statuses=[404] * 9)

    with serving(behaviour) as address, pytest.raises(WorkError, match="the server answers 404"):
        fetch(known(address), tmp_path / "file.pth", pauses=QUICKLY)

    assert len(behaviour.asked) == 1


def test_a_busy_server_is_tried_again(tmp_path: Path) -> None:
    behaviour = Behaviour(CONTENT, statuses=[503, 429])

    with serving(behaviour) as address:
        fetch(known(address), tmp_path / "file.pth", pauses=QUICKLY)

    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    behaviour = Behaviour(CONTENT, silence_seconds=0.5)
    began = time.monotonic()

    with serving(behaviour) as address, pytest.raises(WorkError, match="no byte came for too long"):
        fetch(known(address), tmp_path / "file.pth", pauses=(0.01,), silence_seconds=0.1)

    assert time.monotonic() - began < 5


def test_nobody_at_the_address_is_given_up(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/file.pth"
        with pytest.raises(WorkError, match="Connection refused"):
            fetch(known(address), tmp_path / "file.pth", pauses=QUICKLY)


def test_a_name_that_leads_nowhere_is_told_at_once(tmp_path: Path) -> None:
    began = time.monotonic()

    with pytest.raises(UnreachableError):
        fetch(known("http://no-such-host.invalid/file.pth"), tmp_path / "file.pth")

    assert time.monotonic() - began < 10


def test_a_proxy_of_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviour = Behaviour(CONTENT)
    with serving(behaviour) as address:
        monkeypatch.setenv("http_proxy", address.rpartition("/")[0])
        fetch(known("http://no-such-host.invalid/file.pth"), tmp_path / "file.pth")

    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_a_killed_download_leaves_no_half_file(tmp_path: Path) -> None:
    behaviour = Behaviour(CONTENT, claimed_size=len(CONTENT) * 2, silence_seconds=0)
    target = tmp_path / "file.pth"
    with serving(behaviour) as address:
        context = multiprocessing.get_context("spawn")
        process = context.Process(
            target=download.fetch,
            args=(known(address, size=None), target),
            kwargs={"pauses": (60.0,)},
        )
        process.start()
        while not (tmp_path / "file.pth.partial").exists():
            time.sleep(0.01)
        process.kill()
        process.join()
        assert not target.exists()
        behaviour.claimed_size = None
        fetch(known(address), target)

    assert target.read_bytes() == CONTENT
