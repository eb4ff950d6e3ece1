"""The table of runs: stable for scripts, narrow for terminals, short for whoever has many runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from jobs import attachment, overview, rundir
from jobs.estimate import Plan
from jobs.metrics import Progress
from jobs.rows import COLUMNS, Row, fit, make_row, make_rows, plain_lines, terminal_lines
from jobs.rundir import RunDirectory
from jobs.status import Slurm, State, Status
from tests.jobs.test_status import make_sweep
from tests.jobs.workplace import Workplace

PROGRESS = Progress(
    epoch=12,
    step=18756,
    steps=31260,
    images_per_second=1226.1,
    last_score=96.25,
    best_score=96.5,
)


def status_of(path: str, state: State = "running", note: str = "job 7") -> Status:
    ends = 4102444800.0 if state == "running" else None
    return Status(RunDirectory(Path("/r") / path), state, 2, PROGRESS, note, Plan(20), ends, ends)


RUN = "finetune/20261123-093814-e537"
ELEMENTS = [f"sweep/20261123-093814-e537/{index}-lr=0.00{index}" for index in range(3)]


def test_a_plain_table_has_every_column_and_blanks_in_the_last_only() -> None:
    rows = make_rows([status_of(RUN, "queued", "job 7: waits")], with_elements=False)

    header, line = plain_lines(rows)
    assert header.split() == list(COLUMNS)
    assert line.split(maxsplit=11) == [
        RUN, "queued", "2", "18756/31260", "60%", "12/20",
        "1226", "96.50", "96.25", "-", "-", "job 7: waits",
    ]  # fmt: skip


def test_times_are_left_and_at_the_end() -> None:
    [row] = make_rows([status_of(RUN)], with_elements=False)

    assert row.cells["LEFT"].endswith("h")
    assert row.cells["ENDS"].startswith("2100-01-01T") or row.cells["ENDS"].startswith("2099-12-31")


def test_ordinary_names_fit_into_80_columns() -> None:
    note = "job 1234567: waits behind jobs of higher priority, starts about Tue 16:40"
    statuses = [status_of(RUN), status_of(RUN, "queued", note), status_of(RUN, "cancelled", "")]

    lines = [line.plain for line in terminal_lines(_rows(statuses), 80)]

    assert max(map(len, lines)) <= 80
    assert lines[1].startswith(f"{RUN}  running    60%   1226   96.50  96.25  ")
    assert lines[2].startswith("  epoch 12/20, step 18756/31260, attempt 2 (")
    assert " ".join(line.strip() for line in lines[4:6]).endswith(note)
    assert lines[-1].startswith(f"{RUN}  cancelled")


def test_a_wide_terminal_shows_every_column_and_the_note_in_the_same_line() -> None:
    lines = [line.plain for line in terminal_lines(_rows([status_of(RUN)]), 140)]

    assert len(lines) == 2
    assert lines[0].split() == list(COLUMNS[:-1])
    assert lines[1].endswith("  job 7")


def _rows(statuses: list[Status]) -> list[Row]:
    return [make_row(status) for status in statuses]


def test_a_sweep_has_a_summary_and_its_runs_while_they_run() -> None:
    states: tuple[State, ...] = ("finished", "running", "queued")
    statuses = [status_of(path, state) for path, state in zip(ELEMENTS, states, strict=True)]

    summary, *elements = make_rows(statuses, with_elements=False)

    assert summary.cells["RUN"] == "sweep/20261123-093814-e537"
    assert (summary.state, summary.cells["DONE"], summary.cells["IMG/S"]) == (
        "running", "73%", "1226",
    )  # fmt: skip
    assert summary.note == "3 runs: 1 running, 1 queued, 1 finished"
    # While one waits nobody knows when the last one will have ended.
    assert summary.cells["ENDS"] == "-"
    assert [row.cells["RUN"] for row in elements] == ELEMENTS
    assert elements[0].short_label == "  0-lr=0.000"


def test_a_sweep_that_is_over_is_one_line_unless_it_was_named() -> None:
    statuses = [status_of(path, "finished") for path in ELEMENTS]

    assert len(make_rows(statuses, with_elements=False)) == 1
    assert len(make_rows(statuses, with_elements=True)) == 4


def test_a_big_sweep_is_one_line_unless_it_was_named() -> None:
    statuses = [status_of(f"sweep/20261123-093814-e537/{index:02d}-a") for index in range(10)]

    assert len(make_rows(statuses, with_elements=False)) == 1
    assert len(make_rows(statuses, with_elements=True)) == 11


def test_one_element_alone_is_a_run() -> None:
    [row] = make_rows([status_of(ELEMENTS[0])], with_elements=False)

    assert row.cells["RUN"] == row.short_label == ELEMENTS[0]


@pytest.mark.parametrize("height", [4, 7, 12])
def test_a_low_terminal_keeps_what_is_alive_and_new(height: int) -> None:
    old = [status_of(f"old/20260101-00000{i}-abcd", "finished", "") for i in range(9)]
    rows = _rows([status_of(RUN, "queued"), *old])

    fitted, dropped = fit(rows, 80, height)

    lines = [line.plain for line in fitted]
    assert len(lines) == min(height, 12)
    assert dropped == 12 - len(lines)
    assert any(RUN in line for line in lines)
    assert height == 4 or "000008" in lines[-1]


def make_runs(root: Path, count: int) -> list[RunDirectory]:
    for number in range(count):
        run = RunDirectory(root / "name" / f"20260101-0000{number:02d}-abcd")
        run.engine_files.mkdir(parents=True)
        run.config.touch()
        run.results.write_text(json.dumps({"accuracy_top-1": 90.0}))
    return rundir.all_runs(root)


def test_of_many_runs_the_newest_and_the_living_are_shown(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, 30)
    runs[3].results.unlink()
    attachment.attach(runs[3], "key")

    chosen, hidden = overview.choose(runs, Slurm(math.inf))

    assert chosen == [runs[3], *runs[10:]]
    assert hidden == 9


def test_a_sweep_is_never_cut_apart(tmp_path: Path) -> None:
    make_runs(tmp_path, 4)
    elements = make_sweep(tmp_path, 12)
    for element in elements:
        element.script.unlink()

    chosen, hidden = overview.choose(rundir.all_runs(tmp_path), Slurm(math.inf), recent=2)

    assert [run.path.name for run in chosen[1:]] == [run.path.name for run in elements]
    assert hidden == 3


def test_status_says_how_many_old_runs_are_not_shown(workplace: Workplace) -> None:
    make_runs(workplace.logs, 25)

    short, whole = workplace.launch("status"), workplace.launch("status", "--all")

    assert len(short.stdout.splitlines()) == 1 + overview.RECENT
    assert short.stderr == "5 older runs are not shown; all: python launch.py status --all\n"
    assert (len(whole.stdout.splitlines()), whole.stderr) == (1 + 25, "")


def test_seconds_of_watch_are_checked(workplace: Workplace) -> None:
    for wrong in ("finetune", "0.1", "nan", "-5"):
        done = workplace.launch("status", f"--watch={wrong}")
        assert done.returncode == 2
        assert "argument --watch: expected" in done.stderr
