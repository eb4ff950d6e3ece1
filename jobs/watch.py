"""`watch`: a live screen of one run or of a sweep, plain lines where there is no terminal.

It only reads, so leaving it changes nothing. Files are looked at every second, Slurm is asked every
ten.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live

from jobs import digest, files, ledger, rundir, screen, status
from jobs.history import History
from jobs.rows import fit, make_rows
from jobs.rundir import RunDirectory
from jobs.screen import View
from jobs.status import POLL_SECONDS, Slurm, Status
from jobs.text import clock

LOOK_SECONDS = 1.0
# A plain line at least so long after the last one, unless the state or a score is new.
PLAIN_SECONDS = 30.0
LOG_BYTES = 2**14
LOG_LINES = 50
# What a run directory says for certain. A run that seems lost or stopped may yet be found: files
# written on a node appear here later, and Slurm is asked only now and then.
CERTAIN = ("finished", "failed", "cancelled")
DOUBT_SECONDS = 2 * POLL_SECONDS
FOOT = "q or Ctrl-C leaves, the run goes on"


def show(text: str | None, root: Path) -> int:
    """Watch the run or the sweep that `text` names until it ends; returns the exit code.

    Raises:
        RequestError: no run is so named, or several are that are no sweep.
    """
    return follow(rundir.find_together(text, root))


def follow(runs: list[RunDirectory]) -> int:
    """Watch runs until all have ended: 0 if they are finished, else 1; 0 if somebody types q."""
    watch = _Watch(runs)
    return _show_screen(watch) if sys.stdout.isatty() else _print_lines(watch)


class _Watch:
    """Some runs, looked at again and again."""

    def __init__(self, runs: list[RunDirectory]) -> None:
        self.runs = runs
        self.statuses: list[Status] = []
        self.slurm = Slurm(patience=POLL_SECONDS)
        # Fifty runs of a sweep are not read every second.
        self.seconds = max(LOOK_SECONDS, len(runs) / 10)
        self._history = History(runs[0].metrics)
        self._over_since: float | None = None

    def look(self) -> None:
        """Read how the runs stand now."""
        attempts = {each.run: each.attempt for each in self.statuses}
        self.statuses = status.collect(self.runs, self.slurm)
        if any(attempts.get(each.run, each.attempt) != each.attempt for each in self.statuses):
            # A new attempt runs, and what Slurm said last is that it waits.
            self.slurm.forget()
            self.statuses = status.collect(self.runs, self.slurm)
        if any(each.is_alive or each.state == "unknown" for each in self.statuses):
            self._over_since = None
        elif self._over_since is None:
            self._over_since = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether all runs have ended beyond doubt."""
        if self._over_since is None:
            return False
        are_certain = all(each.state in CERTAIN for each in self.statuses)
        return are_certain or time.monotonic() - self._over_since > DOUBT_SECONDS

    @property
    def exit_code(self) -> int:
        """Of runs that have ended."""
        return 0 if all(each.state == "finished" for each in self.statuses) else 1

    def render(self, console: Console, height: int) -> Group:
        """The screen as it is now."""
        if len(self.runs) > 1:
            rows = make_rows(self.statuses, with_elements=True)
            return Group(*fit(rows, console.width, height)[0])
        [now] = self.statuses
        self._history.update()
        view = View(now, self._history.losses, self._history.scores, *log_end(now.run))
        return screen.render(view, console, height)

    def failures(self) -> list[str]:
        """The digest of each failed run."""
        failed = [each for each in self.statuses if each.state == "failed"]
        digests = [(each.run.label, digest.write(each.run, each.attempt)) for each in failed]
        return [f"{label}: {text}" for label, text in digests if text]


def log_end(run: RunDirectory) -> tuple[str, list[str]]:
    """The newest lines of rank 0's log or, before there is one, of the run's story."""
    attempts = ledger.read(run)
    logs = [run.rank_log(attempts[-1].attempt, 0)] if attempts else []
    for path in [*logs, run.launcher_log]:
        lines = files.read_end(path, LOG_BYTES)[0].splitlines()
        if lines:
            return str(path.relative_to(run.path)), lines[-LOG_LINES:]
    return "", []


def _show_screen(watch: _Watch) -> int:
    console = Console(highlight=False)
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            watch.look()
            foot = FOOT if not watch.slurm.problem else f"Slurm is silent: {watch.slurm.problem}"
            body = watch.render(console, console.height - 1)
            live.update(_with_foot(body, foot, console), refresh=True)
            if watch.is_over:
                break
            if pressed(watch.seconds) in ("q", "Q"):
                return 0
    # The other screen is gone, and with it what was on it.
    console.print(watch.render(console, console.height - 1))
    for text in watch.failures():
        print(text)
    return watch.exit_code


def _with_foot(body: Group, foot: str, console: Console) -> Group:
    lines = console.render_lines(body, pad=False)
    space = max(0, console.height - 1 - len(lines))
    return Group(body, *[""] * space, screen.footer(foot))


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A way to wait so many seconds for a key, unseen and without Enter."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([keyboard], [], [], seconds)
        return os.read(keyboard, 1).decode(errors="replace") if ready else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _print_lines(watch: _Watch) -> int:
    said: dict[RunDirectory, tuple[Status, float]] = {}
    while True:
        watch.look()
        for now in watch.statuses:
            before, said_at = said.get(now.run, (None, 0.0))
            if before is None or is_news(before, now, time.monotonic() - said_at):
                said[now.run] = now, time.monotonic()
                print(f"{clock(time.time())} {now.run.label}: {describe(now)}", flush=True)
        if watch.is_over:
            break
        time.sleep(watch.seconds)
    for text in watch.failures():
        print(text)
    return watch.exit_code


def is_news(before: Status, now: Status, seconds: float) -> bool:
    """Whether how a run stands is worth a line, so many seconds after the last one."""
    steady = before.state, before.attempt, before.progress.last_score
    if (now.state, now.attempt, now.progress.last_score) != steady:
        return True
    return seconds > PLAIN_SECONDS and (now.progress, now.note) != (before.progress, before.note)


def describe(now: Status) -> str:
    """How a run stands in one line."""
    progress = now.progress
    parts = [now.state + (f" (attempt {now.attempt})" if now.attempt > 1 else "")]
    if progress.epoch is not None:
        parts.append(f"epoch {progress.epoch}/{now.plan.epochs or '?'}")
    if progress.step is not None:
        parts.append(f"step {progress.step}/{progress.steps or '?'}")
    if progress.images_per_second is not None:
        parts.append(f"{progress.images_per_second:.0f} images/s")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.last_score is not None:
        parts.append(f"top-1 {progress.last_score:.2f} %")
    if now.finishes_at:
        parts.append(f"ends about {clock(now.finishes_at)}")
    return ", ".join([*parts, *([now.note] if now.note else [])])
