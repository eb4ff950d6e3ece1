"""`watch`: what its screen shows, how it ends, and that leaving it leaves the run alone."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs import screen, watch
from jobs.estimate import Plan
from jobs.metrics import Progress
from jobs.rundir import RunDirectory
from jobs.screen import View
from jobs.status import State, Status
from tests.jobs.workplace import Workplace, eventually

RUN = RunDirectory(Path("/r/finetune/20261123-093814-e537"))
PROGRESS = Progress(
    epoch=12,
    step=18000,
    steps=31260,
    loss=0.1053,
    images_per_second=1226.1,
    last_score=96.25,
    best_score=96.5,
    lr=0.0025,
    memory_mb=5123,
    epoch_step=18000 - 11 * 1563,
)
LOSSES = [(step, 2.3 / (1 + step / 900)) for step in range(100, 18001, 100)]
SCORES = [(epoch * 1563, 97 - 9 / epoch) for epoch in range(1, 12)]
LOG = [f"line {number}" for number in range(50)]


def view(state: State = "running", note: str = "job 7", **changes: Any) -> View:
    status = Status(RUN, state, 2, PROGRESS, note, Plan(20), time.time() + 7230, time.time() + 930)
    return dataclasses.replace(View(status, LOSSES, SCORES, "rank-000.log", LOG), **changes)


class Latin(io.StringIO):
    """A terminal that is not UTF-8."""

    encoding = "iso8859-1"


def rendered(view: View, width: int, height: int, file: io.StringIO | None = None) -> list[str]:
    """The lines of the screen."""
    file = file or io.StringIO()
    console = Console(file=file, width=width, height=height, legacy_windows=False)
    console.print(screen.render(view, console, height))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_the_screen_has_everything_in_80_by_24() -> None:
    lines = rendered(view(), 80, 23)

    text = "\n".join(lines)
    assert lines[0] == f"{RUN.label}{'running, attempt 2':>{80 - len(RUN.label)}}"
    assert lines[1] == "job 7"
    assert lines[2].startswith("epoch 12/20 ━━━")
    assert lines[2].endswith(" 51% 807/1563")
    assert lines[3].startswith("run         ━━━")
    assert lines[3].endswith(" 57% 18000/31260")
    assert lines[4] == "1226 images/s   memory 5.0 GB   loss 0.1053   lr 0.0025"
    assert lines[5].startswith(
        "top-1 96.25 % (best 96.50 %)   2h00m left in this attempt   ends in "
    )
    assert "loss, step 100 to 18000" in text
    assert "top-1 %, step 1563 to 17193" in text
    assert lines[-1] == "line 49"
    assert lines[-2] == "line 48"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60), (40, 10), (30, 6)])
def test_the_screen_fits(width: int, height: int) -> None:
    for each in (view(), view(losses=[], scores=[]), view(log_lines=[]), view("queued", "x" * 300)):
        lines = rendered(each, width, height)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width


def test_a_terminal_without_unicode_gets_none() -> None:
    lines = rendered(view(log_lines=["100 % █████ done"]), 80, 23, Latin())

    assert all(line.isascii() for line in lines)
    assert "100 % ????? done" in lines
    assert sum("*" in line for line in lines) >= 5


def test_a_run_that_waits_shows_why_and_its_story() -> None:
    status = Status(RUN, "queued", 0, Progress(), "job 7: waits for free nodes")
    lines = rendered(View(status, [], [], "launcher.log", ["submitted as job 7"]), 80, 23)

    assert lines[1:] == ["job 7: waits for free nodes", "", "launcher.log", "submitted as job 7"]


def test_a_log_cannot_take_over_the_screen() -> None:
    nasty = "\x1b[2J\x1b[31mred\x1b[0m\tback\x07 10%\r 99%\x00"

    assert rendered(view(log_lines=[nasty]), 80, 23)[-1] == " 99%"


# What follows runs the real command.


def start_in_terminal(workplace: Workplace, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """`launch.py ARGUMENTS` in a terminal of 80 x 24; the process and our end of the terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    # The shell leads a session, so the terminal that it opens is the one whose Ctrl-C reaches it.
    opening = f'exec "$@" <>{os.ttyname(theirs)} >&0 2>&0'
    process = subprocess.Popen(
        ["/bin/sh", "-c", opening, "sh", sys.executable, "launch.py", *arguments],
        cwd=workplace.project,
        env={**workplace.environment, "TERM": "xterm"},
        start_new_session=True,
    )
    eventually("the terminal is open", lambda: "watch" in _command_line(process.pid))
    os.close(theirs)
    return process, ours


def _command_line(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return "" if command[0] == "/bin/sh" else " ".join(command)


def read_until(terminal: int, wanted: str) -> str:
    """What is printed until `wanted` is among it, or until the end."""
    seen = b""

    def arrived() -> bool:
        nonlocal seen
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # the other side is gone
            return True
        return wanted.encode() in seen

    eventually(f"{wanted!r} on the screen", arrived, 60)
    return seen.decode(errors="replace")


@pytest.fixture
def running(workplace: Workplace) -> Iterator[subprocess.Popen[str]]:
    """A local run of a minute."""
    process = workplace.start("--config", "stub.yaml", STUB_STEPS="600")
    eventually("the first step", lambda: workplace.runs and workplace.runs[0].metrics.exists())
    yield process
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(("key", "code"), [(b"q", 0), (b"\x03", 130)])
def test_leaving_the_screen_leaves_the_run_and_the_terminal_alone(
    workplace: Workplace, key: bytes, code: int
) -> None:
    [run] = workplace.runs
    process, terminal = start_in_terminal(workplace, "watch")
    before = termios.tcgetattr(terminal)[3]
    shown = read_until(terminal, "q or Ctrl-C leaves")
    assert "\x1b[?1049h" in shown  # the terminal's other screen
    assert run.label in shown
    assert "100 images/s" in shown
    # Keys are not echoed and need no Enter.
    assert not termios.tcgetattr(terminal)[3] & (termios.ECHO | termios.ICANON)

    os.write(terminal, key)

    assert "\x1b[?1049l" in read_until(terminal, "\x1b[?1049l")
    assert process.wait(timeout=30) == code
    assert termios.tcgetattr(terminal)[3] == before
    steps = len(run.metrics.read_text().splitlines())
    eventually("the run goes on", lambda: len(run.metrics.read_text().splitlines()) > steps + 2)
    os.close(terminal)


def test_a_screen_ends_with_its_run_and_leaves_the_end_to_read(workplace: Workplace) -> None:
    run = workplace.start("--config", "stub.yaml", STUB_STEPS="300", STUB="crash:0")
    eventually("a run", lambda: workplace.runs)
    process, terminal = start_in_terminal(workplace, "watch")

    text = read_until(terminal, "its log: ")

    assert process.wait(timeout=30) == 1
    left = text.rpartition("\x1b[?1049l")[2]
    assert "rank 0 on" in left
    assert "RuntimeError: broken on purpose" in left
    run.wait(timeout=60)
    os.close(terminal)


def test_plain_lines_tell_what_changes_until_the_end(workplace: Workplace) -> None:
    process = workplace.start("--config", "stub.yaml", STUB_STEPS="30")
    eventually("a run", lambda: workplace.runs)

    done = workplace.launch("watch")

    process.wait(timeout=60)
    [run] = workplace.runs
    first, *_, last = done.stdout.splitlines()
    assert done.returncode == 0
    assert f" {run.label}: running" in first
    assert last.endswith(f" {run.label}: finished, step 30/30, top-1 90.50 %")
    assert "\x1b" not in done.stdout


def test_a_failed_run_is_told_with_its_digest_and_exit_code(workplace: Workplace) -> None:
    workplace.launch("--config", "stub.yaml", STUB="crash:0", STUB_STEPS="300")

    done = workplace.launch("watch")

    assert done.returncode == 1
    assert "RuntimeError: broken on purpose" in done.stdout


def test_a_sweep_is_watched_as_a_whole(workplace: Workplace) -> None:
    sweep = workplace.logs / "name" / "20260102-000000-abcd"
    for index in range(2):
        folder = sweep / f"{index}-seed={index}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
        (folder / "results.json").write_text(json.dumps({"accuracy_top-1": 90.0 + index}))
    (sweep / "sweep.json").write_text("{}")

    done = workplace.launch("watch", "name")

    assert done.returncode == 0
    assert [line.split(" ", 1)[1] for line in done.stdout.splitlines()] == [
        "name/20260102-000000-abcd/0-seed=0: finished, top-1 90.00 %",
        "name/20260102-000000-abcd/1-seed=1: finished, top-1 91.00 %",
    ]


def test_news_is_a_state_or_a_score_or_what_is_new_after_a_while() -> None:
    before = Status(RUN, "running", 1, Progress(step=1), "job 7")
    further = Status(RUN, "running", 1, Progress(step=2), "job 7")
    scored = Status(RUN, "running", 1, Progress(step=1, last_score=9.0), "job 7")

    assert not watch.is_news(before, further, seconds=5)
    assert watch.is_news(before, further, seconds=60)
    assert not watch.is_news(before, before, seconds=60)
    assert watch.is_news(before, scored, seconds=0)
