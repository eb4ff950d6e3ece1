"""`status`: the table of runs, once or again and again."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import NoReturn

from jobs import attachment, rundir, status
from jobs.rows import COLUMNS, Row, fit, make_rows, plain_lines, terminal_lines
from jobs.rundir import RunDirectory
from jobs.status import POLL_SECONDS, Slurm

# Whatever is alive is shown, and so many of the newest that are over: one screen of them.
RECENT = 20
CLOCK = ("LEFT", "ENDS")


def show(texts: list[str], root: Path, *, everything: bool, every: float | None) -> int:
    """Print the status of the named runs or of the newest, or keep showing it.

    Args:
        texts: which runs; all if empty.
        root: the folder of all runs.
        everything: whether the old ones are shown too.
        every: seconds between two looks; None: look once.

    Raises:
        RequestError: a name fits no run, or there are no runs.
    """
    if every is not None:
        _watch(texts, root, everything, every)
    slurm = Slurm(patience=math.inf)
    rows, hidden = _rows(texts, root, everything, slurm)
    if slurm.problem:
        # squeue says the same in several ways, and the last one is the plainest.
        print(f"Slurm does not answer: {slurm.problem.splitlines()[-1]}", file=sys.stderr)
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False)
        for line in terminal_lines(rows, console.width):
            console.print(line, soft_wrap=True)
    else:
        print(*plain_lines(rows), sep="\n")
    if hidden:
        print(_hint(hidden), file=sys.stderr)
    return 0


def choose(
    runs: list[RunDirectory], slurm: Slurm, recent: int = RECENT
) -> tuple[list[RunDirectory], int]:
    """All runs that are alive and the newest others, and how many older ones are left out.

    A sweep counts as one and is never cut apart.
    """
    live = slurm.live(runs)
    alive = {_whole(run) for run in runs if run in live or _is_here(run)}
    over = dict.fromkeys(whole for run in runs if (whole := _whole(run)) not in alive)
    kept = alive | set(list(over)[-recent:])
    chosen = [run for run in runs if _whole(run) in kept]
    return chosen, len(runs) - len(chosen)


def _whole(run: RunDirectory) -> Path:
    return run.sweep or run.path


def _is_here(run: RunDirectory) -> bool:
    """Whether a process carries the run, without Slurm."""
    launcher = attachment.read(run)
    return launcher is not None and launcher.is_alive() is not False and not run.results.exists()


def _rows(texts: list[str], root: Path, everything: bool, slurm: Slurm) -> tuple[list[Row], int]:
    runs, hidden = rundir.find_many(texts, root), 0
    named = bool(texts) or everything
    if not named:
        runs, hidden = choose(runs, slurm)
    return make_rows(status.collect(runs, slurm), with_elements=named), hidden


def _hint(hidden: int) -> str:
    runs = "1 older run is" if hidden == 1 else f"{hidden} older runs are"
    return f"{runs} not shown; all: python launch.py status --all"


def _watch(texts: list[str], root: Path, everything: bool, every: float) -> NoReturn:
    slurm = Slurm(patience=max(every, POLL_SECONDS))
    if not sys.stdout.isatty():
        _print_changes(texts, root, everything, every, slurm)

    from rich.console import Console, Group
    from rich.live import Live

    console = Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            rows, hidden = _rows(texts, root, everything, slurm)
            notes = [f"{time.strftime('%H:%M:%S')}, every {every:.0f} s; Ctrl-C leaves"]
            if slurm.problem:
                notes.insert(0, f"Slurm does not answer: {slurm.problem}")
            lines, dropped = fit(rows, console.width, console.height - len(notes) - 1)
            hint = _hint(hidden + dropped) if hidden + dropped else ""
            live.update(Group(*lines, hint, *notes), refresh=True)
            time.sleep(every)


def _print_changes(
    texts: list[str], root: Path, everything: bool, every: float, slurm: Slurm
) -> NoReturn:
    shown: set[tuple[str, ...]] = set()
    problem = None
    while True:
        rows, _ = _rows(texts, root, everything, slurm)
        header, *lines = plain_lines(rows)
        # What merely follows from the clock is no change.
        cells = [tuple(row.cells[name] for name in COLUMNS if name not in CLOCK) for row in rows]
        new = [line for line, each in zip(lines, cells, strict=True) if each not in shown]
        if new:
            print(*([] if shown else [header]), *new, sep="\n", flush=True)
        shown = set(cells)
        if slurm.problem != problem:
            problem = slurm.problem
            print(
                f"Slurm does not answer: {problem}" if problem else "Slurm answers again",
                file=sys.stderr,
            )
        time.sleep(every)
