"""`launch.py logs`: the ranks merged in the order of time, the end of long logs, all attempts."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs import linetimes
from jobs.ranklog import RankLog, start_of_tail
from jobs.rundir import RunDirectory
from tests.jobs.workplace import Workplace, end, eventually, ledger_lines

TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "train/loop.py", line 1, in fit',
    "    raise ValueError",
    "",
    "ValueError: broken",
]
STAMP = "20260101-000000-aaaa"


def write_log(run: RunDirectory, rank: int, lines: list[tuple[float | None, str]]) -> None:
    """A rank's log, with what its parent noted of those lines that have a time."""
    log = run.rank_log(1, rank)
    log.parent.mkdir(parents=True, exist_ok=True)
    times, text = [], b""
    for seconds, line in lines:
        text += line.encode() + b"\n"
        if seconds is not None:
            times.append(f"{len(text)} {seconds}\n")
    log.write_bytes(text)
    if times:
        log.with_suffix(".times").write_text("".join(times))


@pytest.fixture
def ended(workplace: Workplace) -> RunDirectory:
    run = RunDirectory(workplace.logs / "r" / STAMP)
    run.path.mkdir(parents=True)
    run.config.touch()
    return run


def test_ranks_are_merged_by_time_and_tracebacks_stay_together(
    workplace: Workplace, ended: RunDirectory
) -> None:
    write_log(ended, 0, [(1.0, "a"), (3.0, "c"), (5.2, "e"), (9.0, "g")])
    broken = [(5.0 + index / 10, line) for index, line in enumerate(TRACEBACK)]
    write_log(ended, 1, [(2.0, "b"), (4.0, "d"), *broken, (8.0, "f")])

    done = workplace.launch("logs", STAMP)

    expected = [(0, "a"), (1, "b"), (0, "c"), (1, "d"), *((1, line) for line in TRACEBACK)]
    expected += [(0, "e"), (1, "f"), (0, "g")]
    assert done.stdout.splitlines() == [f"[rank-{rank:03d}] {line}" for rank, line in expected]
    alone = workplace.launch("logs", STAMP, "--rank", "1")
    assert alone.stdout.splitlines() == ["b", "d", *TRACEBACK, "f"]


def test_without_times_or_with_damaged_ones_every_line_is_printed_once(
    workplace: Workplace, ended: RunDirectory
) -> None:
    write_log(ended, 0, [(None, "a"), (None, "b")])
    write_log(ended, 1, [(2.0, "c"), (None, "d")])
    times = ended.rank_log(1, 1).with_suffix(".times")
    times.write_bytes(b"\xff\xfe\nx y\n1e999 1\n2 nan\n" + times.read_bytes() + b"99 ")

    done = workplace.launch("logs", STAMP)

    lines = ["[rank-000] a", "[rank-000] b", "[rank-001] c", "[rank-001] d"]
    assert sorted(done.stdout.splitlines()) == lines
    assert done.returncode == 0


def test_a_last_line_without_an_end_is_printed(workplace: Workplace, ended: RunDirectory) -> None:
    write_log(ended, 0, [(1.0, "a")])
    write_log(ended, 1, [(2.0, "b")])
    with ended.rank_log(1, 0).open("a") as log:
        log.write("last words")

    done = workplace.launch("logs", STAMP)

    assert done.stdout.splitlines() == ["[rank-000] a", "[rank-000] last words", "[rank-001] b"]


def test_a_rank_that_there_is_not_is_told_when_followed(
    workplace: Workplace, ended: RunDirectory
) -> None:
    write_log(ended, 0, [(1.0, "a")])

    done = workplace.launch("logs", "-f", STAMP, "--rank", "7")

    assert (done.returncode, done.stdout) == (2, "")
    assert "has 1 ranks, from 0; there is no 7" in done.stderr


def test_long_logs_show_their_end_and_say_how_to_see_all(
    workplace: Workplace, ended: RunDirectory
) -> None:
    for rank in (0, 1):
        write_log(ended, rank, [(float(n), f"line {n}") for n in range(1000)])

    short = workplace.launch("logs", STAMP)
    few = workplace.launch("logs", STAMP, "--tail", "3", "--rank", "0")
    whole = workplace.launch("logs", STAMP, "--tail", "all")

    assert short.stdout.splitlines() == [
        f"[rank-{rank:03d}] line {n}" for n in range(800, 1000) for rank in (0, 1)
    ]
    assert "the last 200 lines of each rank; --tail all prints all\n" in short.stderr
    assert few.stdout == "line 997\nline 998\nline 999\n"
    assert len(whole.stdout.splitlines()) == 2000
    assert "--tail" not in whole.stderr
    assert workplace.launch("logs", "--tail", "none").returncode == 2


def test_the_end_of_a_file_is_found_from_its_end(tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - lengths of lines, not a secret
    log = tmp_path / "rank-000.log"
    for ending in ("", "no newline"):
        lines = [b"x" * chance.choice([0, 5, 70_000]) for _ in range(50)]
        log.write_bytes(b"".join(line + b"\n" for line in lines) + ending.encode())
        whole = log.read_bytes().split(b"\n")
        whole = whole if ending else whole[:-1]
        for count in (1, 2, 7, 49, 50, 51, 90):
            tail = log.read_bytes()[start_of_tail(log, count) :].removesuffix(b"\n")
            assert tail == b"\n".join(whole[-count:])


def test_a_log_is_read_in_parts_and_a_line_once_it_is_whole(tmp_path: Path) -> None:
    log = RankLog(tmp_path / "rank-000.log", 0)
    assert log.read() == []
    log.path.write_text("one\ntw")
    assert [block.lines for block in log.read()] == [["one"]]
    with log.path.open("a") as file:
        file.write("o\n" + "y" * 5_000_000 + "\n")
    # All of it, although a part has no end of a line in it.
    found = [line[:3] for _ in range(2) for block in log.read() for line in block.lines]
    assert found == ["two", "yyy"]
    assert log.read() == []


def test_a_line_that_is_read_before_its_end_loses_no_letter(tmp_path: Path) -> None:
    path = tmp_path / "rank-000.log"
    path.write_text("a\nlast w")
    log = RankLog(path, 0)

    def lines(*, is_last: bool) -> list[str]:
        return [line for block in log.read(is_last=is_last) for line in block.lines]

    assert lines(is_last=False) == ["a"]
    assert lines(is_last=True) == ["last w"]
    with path.open("a") as file:
        file.write("ords\nnext\n")
    assert lines(is_last=False) == ["ords", "next"]
    assert lines(is_last=True) == []


def test_the_times_say_when_the_log_grew(tmp_path: Path) -> None:
    log = tmp_path / "rank-000.log"
    clock, times = linetimes.Clock(log), linetimes.Times(log)
    clock.look()
    before = time.time()
    log.write_text("one\n")
    clock.look()
    clock.look()
    with log.open("a") as file:
        file.write("two\n")
    clock.look()

    times.read()

    assert len(log.with_suffix(".times").read_text().splitlines()) == 2
    first, second = times.at(4), times.at(8)
    assert first is not None
    assert second is not None
    assert before - 0.001 <= first <= second <= time.time() + 0.001
    assert times.at(9) is None


def test_a_moved_run_is_read_where_it_lies(workplace: Workplace, tmp_path: Path) -> None:
    workplace.launch("--config", "stub.yaml", STUB="crash:0")
    [run] = workplace.runs
    moved = tmp_path / "archive" / "kept"
    moved.parent.mkdir()
    shutil.move(run.path, moved)

    done = workplace.launch("logs", str(moved))

    assert done.returncode == 0
    assert "RuntimeError: broken on purpose" in done.stdout
    assert f"its log: {moved}/attempt-01/rank-000.log" in done.stderr


def test_following_goes_on_through_attempts_and_says_which_begins(
    workplace: Workplace, tmp_path: Path
) -> None:
    two = ("--set", "cluster.cpu_workers=2")
    first = workplace.start("--config", "stub.yaml", *two, STUB_STEPS="600")
    run = eventually("a run", lambda: workplace.runs)[0]
    eventually("steps", run.metrics.exists)
    shown, said = tmp_path / "shown", tmp_path / "said"
    with shown.open("w") as output, said.open("w") as errors:
        follower = subprocess.Popen(
            [sys.executable, "launch.py", "logs", "-f", run.label],
            cwd=workplace.project,
            env=dict(workplace.environment),
            stdout=output,
            stderr=errors,
        )
    eventually("both ranks", lambda: shown.read_text().count('"RANK"') == 2)
    # Held, as between the end of a requeued job's attempt and its next one.
    follower.send_signal(signal.SIGSTOP)
    end(first, signal.SIGINT)
    second = workplace.start("resume", run.label, STUB_STEPS="600")
    eventually("a second attempt", lambda: len(ledger_lines(run)) == 2)
    follower.send_signal(signal.SIGCONT)
    eventually("the second attempt", lambda: shown.read_text().count('"attempt": 2') == 2)
    end(second, signal.SIGINT)

    assert follower.wait(timeout=60) == 0
    lines = shown.read_text().splitlines()
    header = next(line for line in lines if line.startswith("== attempt 2: on "))
    at = lines.index(header)
    assert sum("stopped by SIGTERM" in line for line in lines[:at]) == 2
    attempts = [json.loads(line[11:])["attempt"] for line in lines if line[11:].startswith("{")]
    assert attempts == [1, 1, 2, 2]
    assert f"{run.label}: stopped" in said.read_text()
