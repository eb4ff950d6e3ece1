"""How ranks find each other: free ports, addresses that resolve, nothing stale, bounded waiting."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from jobs import ports, rendezvous
from jobs.errors import WorkError
from jobs.place import Place
from jobs.rendezvous import Meeting, StoppedError
from jobs.rundir import RunDirectory
from jobs.stop import StopRequest


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    (tmp_path / "submitit").mkdir()
    return RunDirectory(tmp_path)


def place(start_key: str) -> Place:
    return Place(1, 1, 2, 2, "12", 0, "node1", ("node1",), start_key)


def test_what_rank_0_publishes_is_what_the_others_read(run: RunDirectory) -> None:
    meeting = Meeting("10.0.0.1", 23456, 2)
    publisher = threading.Timer(0.3, rendezvous.publish, (run, place("12.0"), meeting))
    publisher.start()

    assert meeting == rendezvous.await_meeting(run, place("12.0"), StopRequest(), patience=10)
    publisher.join()


def test_another_start_of_the_job_is_never_read(run: RunDirectory) -> None:
    rendezvous.publish(run, place("12.0"), Meeting("old", 1, 1))

    with pytest.raises(WorkError, match="rank 0 did not publish"):
        rendezvous.await_meeting(run, place("12.1"), StopRequest(), patience=0.3)


def test_waiting_ends_when_the_rank_is_asked_to_stop(run: RunDirectory) -> None:
    stop = StopRequest()
    stop.request(signal.SIGTERM)
    began = time.monotonic()

    with pytest.raises(StoppedError, match="SIGTERM"):
        rendezvous.await_meeting(run, place("12.0"), stop, patience=60)
    assert time.monotonic() - began < 5


def test_ports_are_free_and_below_the_ephemeral_range() -> None:
    for _ in range(50):
        with ports.reserve() as port, socket.socket() as probe:
            assert 10_000 <= port.number < 32_768
            probe.bind(("", port.number))


def fake_scontrol(folder: Path, answer: str) -> None:
    script = folder / "scontrol"
    script.write_text(f"#!/bin/sh\nprintf '%s\\n' '{answer}'\n")
    script.chmod(0o755)


@pytest.mark.parametrize(
    ("answer", "node", "expected"),
    [
        ("NodeName=node7 NodeAddr=127.0.0.9 NodeHostName=vm", "node7", "127.0.0.9"),
        ("NodeName=x NodeAddr=does.not.resolve.invalid", "localhost", "localhost"),
        ("Node x not found", "localhost", "localhost"),
        ("", "does.not.resolve.invalid", socket.gethostname()),
    ],
)
def test_the_address_is_slurms_then_the_nodes_name_then_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, node: str, expected: str
) -> None:
    fake_scontrol(tmp_path, answer)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    assert expected == rendezvous.address_of(node)
