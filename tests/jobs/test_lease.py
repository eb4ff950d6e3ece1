"""Two starts never hold one run at once, and a dead one does not hold it for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import lease, ports
from jobs.errors import RequestError
from jobs.rundir import RunDirectory
from tests.conftest import PROJECT


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setattr(lease, "REFRESH_SECONDS", 0.2)
    return RunDirectory(tmp_path)


@pytest.fixture
def refreshed(run: RunDirectory) -> Iterator[lease.Lease]:
    """A lease whose holder lives."""
    held = lease.take(run, "7.0", "job 7")
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.05):
            held.refresh()

    thread = threading.Thread(target=beat)
    thread.start()
    yield held
    over.set()
    thread.join()


@pytest.mark.usefixtures("refreshed")
def test_a_held_run_is_refused_and_its_holder_named(run: RunDirectory) -> None:
    with pytest.raises(RequestError, match="job 7 holds this run"):
        lease.take(run, "8.0", "job 8")
    assert lease.is_alive(run)


def test_a_released_run_is_taken_without_waiting(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "WATCHED_PERIODS", 100)
    lease.take(run, "7.0", "job 7").release()
    began = time.monotonic()

    lease.take(run, "8.0", "job 8")

    assert time.monotonic() - began < 10  # watching takes twenty seconds


def test_a_silent_holder_loses_the_run_and_learns_of_it(run: RunDirectory) -> None:
    dead = lease.take(run, "7.0", "job 7")

    lease.take(run, "7.1", "job 7")

    time.sleep(0.3)
    assert not dead.refresh()
    dead.release()
    holder = lease.read(run)
    assert holder is not None
    assert (holder.start_key, holder.released) == ("7.1", False)


def test_a_full_disk_does_not_make_a_holder_look_dead(
    run: RunDirectory, refreshed: lease.Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lease, "write_json", full)

    assert lease.is_alive(run)
    assert refreshed.refresh()


def test_of_two_starts_at_once_one_holds_the_run(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "WATCHED_PERIODS", 100)  # however slow the machine is
    for number in range(5):
        one = RunDirectory(run.path / str(number))
        barrier = threading.Barrier(2)
        holds: list[bool] = []

        def start(
            job: str, one: RunDirectory, barrier: threading.Barrier, holds: list[bool]
        ) -> None:
            barrier.wait()
            try:
                mine = lease.take(one, f"{job}.0", f"job {job}")
            except RequestError:
                holds.append(False)
                return
            holds.append(True)
            while len(holds) < 2:  # the other may look only now
                mine.refresh()
                time.sleep(0.05)

        starts = [(job, one, barrier, holds) for job in "89"]
        threads = [threading.Thread(target=start, args=each) for each in starts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(holds) == [False, True]


def test_a_start_that_comes_to_write_long_after_another_has_looked_too_is_refused(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both see a run that nobody holds; the slow one writes when the other has held it a while."""
    lease.take(run, "7.0", "job 7").release()
    seen = lease.read(run)
    lease.take(run, "8.0", "job 8")
    beats = threading.Timer(0.3, lambda: os.utime(run.lease))
    looks = iter([seen, seen])
    real = lease.read
    monkeypatch.setattr(lease, "read", lambda run: next(looks, None) or real(run))
    beats.start()

    with pytest.raises(RequestError, match="job 8 holds this run"):
        lease.take(run, "9.0", "job 9")
    beats.join()


def test_a_start_that_died_before_it_wrote_does_not_keep_the_run(run: RunDirectory) -> None:
    lease.take(run, "7.0", "job 7").release()
    (run.claims / "2").touch()

    lease.take(run, "8.0", "job 8")

    holder = lease.read(run)
    assert holder is not None
    assert (holder.start_key, holder.number) == ("8.0", 3)


def test_on_a_full_disk_a_start_takes_a_run_that_nobody_holds(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    lease.take(run, "7.0", "job 7").release()
    monkeypatch.setattr(lease, "write_json", full)

    lease.take(run, "8.0", "job 8")


def test_a_damaged_lease_is_nobodys(run: RunDirectory) -> None:
    run.lease.write_text("{")

    lease.take(run, "8.0", "job 8")


def test_a_reserved_port_is_nobody_elses_until_its_holder_dies(tmp_path: Path) -> None:
    code = "import sys; from jobs import ports; p = ports.reserve(); print(p.number, flush=True)"
    other = subprocess.Popen(
        [sys.executable, "-c", f"{code}; sys.stdin.read()"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout
    with other:
        port = int(other.stdout.readline())

        assert ports.reserve_this(port) is None
        other.send_signal(signal.SIGKILL)

    mine = ports.reserve_this(port)
    assert mine
    mine.release()
    assert not Path(mine._file).exists()
