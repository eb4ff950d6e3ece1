"""The local engine with real processes: progress, failures, stopping, and no orphans."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.rundir import RunDirectory
from tests.jobs.workplace import (
    Workplace,
    end,
    eventually,
    is_running,
    ledger_lines,
    saved_steps,
    worker_reports,
    writable_by_others,
)

LONG = {"STUB_STEPS": "600"}


@pytest.fixture
def workplace(workplace: Workplace) -> Workplace:
    """With two workers, one of which may end before the other."""
    recipe = workplace.project / "configs" / "stub.yaml"
    recipe.write_text(recipe.read_text().replace("cpu_workers: 1", "cpu_workers: 2"))
    return workplace


def start_long(
    workplace: Workplace, **variables: str
) -> tuple[subprocess.Popen[str], RunDirectory, list[int]]:
    """A run that goes on for a minute: its launcher, its directory, the pids of its workers."""
    process = workplace.start("--config", "stub.yaml", **LONG, **variables)
    run = eventually("a run directory", lambda: workplace.runs)[0]
    reports = eventually(
        "two workers that take steps",
        lambda: run.metrics.exists() and len(found := worker_reports(run)) == 2 and found,
    )
    return process, run, [report["pid"] for report in reports]


def test_a_run_ends_with_its_scores_and_a_complete_directory(workplace: Workplace) -> None:
    done = workplace.launch("--config", "stub.yaml", "--name", "first")

    assert (done.returncode, "top-1 90.50 %" in done.stdout) == (0, True), done.stderr
    [run] = workplace.runs
    assert run.path.parent.name == "first"
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o750
    assert {"config.yaml", "provenance.json", "code", "attempts.jsonl", "metrics.jsonl"} <= {
        path.name for path in run.path.iterdir()
    }
    [attempt] = ledger_lines(run)
    expected = {"attempt": 1, "reason": "finished", "exit_code": 0, "first_step": 1, "last_step": 3}
    assert expected == {key: attempt[key] for key in expected}


@pytest.mark.parametrize(
    ("readable_by", "mode"), [("owner", 0o700), ("group", 0o750), ("everyone", 0o755)]
)
def test_a_runs_directory_is_open_to_whom_the_recipe_says_and_for_writing_to_nobody_else(
    workplace: Workplace, readable_by: str, mode: int
) -> None:
    setting = ("--set", f"run.readable_by={readable_by}", "--set", "cluster.cpu_workers=1")
    alone = workplace.launch("--config", "stub.yaml", *setting)
    swept = workplace.launch("--config", "stub.yaml", *setting, "--sweep", "run.seed=1,2")

    assert (alone.returncode, swept.returncode) == (0, 0), alone.stderr + swept.stderr
    folders = {run.path for run in workplace.runs} | {run.sweep for run in workplace.runs} - {None}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {mode}
    store = workplace.logs / ".code"
    assert stat.S_IMODE(store.stat().st_mode) == 0o700


def test_whatever_the_umask_nobody_else_may_write_anything_of_a_run(workplace: Workplace) -> None:
    setting = ("--set", "cluster.cpu_workers=1")

    done = workplace.launch("--config", "stub.yaml", *setting, umask=0)

    assert done.returncode == 0, done.stderr
    assert workplace.runs[0].metrics.exists()
    assert writable_by_others(workplace.logs) == []


def test_a_file_of_a_new_run_that_cannot_be_written_is_told_and_nothing_is_left(
    workplace: Workplace,
) -> None:
    """As where a quota is used up: the folder has been made by then, its files cannot be."""
    command = f"ulimit -f 0; exec {sys.executable} launch.py --config stub.yaml"

    done = subprocess.run(
        ["bash", "-c", command],
        cwd=workplace.project,
        env=dict(workplace.environment),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    folder = workplace.logs / "stub"
    assert f"error: the run cannot be made in {folder}: [Errno 27] File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(workplace.logs.iterdir()) == []


@pytest.mark.parametrize("behaviour", ["well", "crash:1"])
def test_nothing_that_a_run_leaves_holds_a_variable_of_the_shell(
    workplace: Workplace, behaviour: str
) -> None:
    value = "0123-never-to-be-written"

    workplace.launch("--config", "stub.yaml", STUB=behaviour, ACCESS_TOKEN=value)

    files = [path for path in workplace.project.rglob("*") if path.is_file()]
    assert any(path.name == "rank-001.log" for path in files)
    assert [path for path in files if value.encode() in path.read_bytes()] == []


def test_every_worker_gets_torchruns_variables_and_runs_the_snapshot(workplace: Workplace) -> None:
    leaks = {"RANK": "7", "WORLD_SIZE": "9", "MASTER_ADDR": "elsewhere", "MASTER_PORT": "1"}
    workplace.launch("--config", "stub.yaml", "--set", "cluster.cpu_workers=4", **leaks)

    [run] = workplace.runs
    reports = worker_reports(run)
    assert [(report["RANK"], report["LOCAL_RANK"]) for report in reports] == [
        ("0", "0"),
        ("1", "1"),
        ("2", "2"),
        ("3", "3"),
    ]
    [shared] = {
        (report["WORLD_SIZE"], report["LOCAL_WORLD_SIZE"], report["MASTER_ADDR"], report["code"])
        for report in reports
    }
    assert ("4", "4", "127.0.0.1", str(run.code / "train" / "__main__.py")) == shared
    [port] = {int(report["MASTER_PORT"]) for report in reports}
    assert 10_000 <= port < 32_768


def test_a_crash_names_the_first_failing_rank_and_shows_its_last_lines(
    workplace: Workplace,
) -> None:
    done = workplace.launch("--config", "stub.yaml", STUB="crash:1", **LONG)

    assert done.returncode == 1
    assert "failed first: exit code 1" in done.stderr
    assert "RuntimeError: broken on purpose" in done.stderr
    [run] = workplace.runs
    assert [line["reason"] for line in ledger_lines(run)] == ["crash"]
    logs = workplace.launch("logs")
    assert "[rank-001] RuntimeError: broken on purpose" in logs.stdout
    assert "rank 1 on" in logs.stderr


def test_a_worker_killed_by_a_signal_ends_the_deaf_others_too(workplace: Workplace) -> None:
    done = workplace.launch("--config", "stub.yaml", STUB="kill:1", **LONG)

    assert done.returncode == 1
    assert "rank 1" in done.stderr
    assert "killed by SIGKILL" in done.stderr


def test_a_refusal_by_the_worker_is_a_wrong_request_in_its_own_words(workplace: Workplace) -> None:
    done = workplace.launch("--config", "stub.yaml", STUB="refuse")

    assert done.returncode == 2
    assert "error: the archive is damaged" in done.stderr
    assert "download it again" in done.stderr
    [line] = ledger_lines(workplace.runs[0])
    assert line["reason"] == "configuration error"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_launcher_saves_and_leaves_nothing_running(
    workplace: Workplace, number: signal.Signals
) -> None:
    process, run, pids = start_long(workplace)

    assert end(process, number) == 130
    assert not any(is_running(pid) for pid in pids)
    assert saved_steps(run)
    assert [line["reason"] for line in ledger_lines(run)] == ["stopped"]


def test_a_second_ctrl_c_ends_workers_that_do_not_listen(workplace: Workplace) -> None:
    process, _, pids = start_long(workplace, STUB="deaf")
    process.send_signal(signal.SIGINT)
    # Two signals of one kind that come before a process looks are one.
    time.sleep(1)

    assert end(process, signal.SIGINT) == 130
    assert not any(is_running(pid) for pid in pids)


def test_killing_the_launcher_leaves_no_orphans_and_saves(workplace: Workplace) -> None:
    process, run, pids = start_long(workplace)

    assert end(process, signal.SIGKILL) == -signal.SIGKILL
    eventually("the workers are gone", lambda: not any(is_running(pid) for pid in pids))
    eventually("the attempt is closed", lambda: ledger_lines(run)[0]["end"])
    assert saved_steps(run)


def test_killing_one_task_ends_the_run_and_its_worker(workplace: Workplace) -> None:
    process, run, pids = start_long(workplace)
    task_of_rank_1 = int(Path(f"/proc/{pids[1]}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(task_of_rank_1, signal.SIGKILL)

    assert process.wait(timeout=60) == 1
    assert not any(is_running(pid) for pid in pids)
    failure = json.loads((run.attempt(1) / "failure.json").read_text())
    assert (failure["rank"], failure["exit_code"]) == (1, -9)


def test_cancel_ends_a_running_run_and_status_says_so(workplace: Workplace) -> None:
    process, run, _ = start_long(workplace)
    assert "running" in workplace.launch("status", run.label).stdout

    done = workplace.launch("cancel", run.label)

    assert (done.returncode, process.wait(timeout=60)) == (0, 130)
    assert "cancelled" in workplace.launch("status", run.label).stdout
    again = workplace.launch("cancel", run.label)
    assert (again.returncode, "neither queued nor running" in again.stderr) == (2, True)


def test_logs_follow_prints_until_the_run_ends(workplace: Workplace) -> None:
    process = workplace.start("--config", "stub.yaml", STUB_STEPS="20")
    run = eventually("a run directory", lambda: workplace.runs)[0]

    logs = workplace.launch("logs", "-f", "--rank", "1", run.label)

    assert process.wait(timeout=60) == 0
    assert '"RANK": "1"' in logs.stdout
    assert '"RANK": "0"' not in logs.stdout
    assert f"{run.label}: finished" in logs.stderr


def test_a_stopped_run_is_resumed_here_with_other_settings(workplace: Workplace) -> None:
    process, run, _ = start_long(workplace)
    again = workplace.launch("resume", run.label)
    assert (again.returncode, "is running already" in again.stderr) == (2, True)
    end(process, signal.SIGINT)
    [first] = ledger_lines(run)

    done = workplace.launch(
        "resume",
        run.label,
        "--set",
        "logging.every_steps=7",
        STUB_STEPS=str(first["last_step"] + 2),
    )

    assert done.returncode == 0, done.stderr
    assert f"goes on from the checkpoint of step {first['last_step']}" in done.stderr
    second = ledger_lines(run)[1]
    assert (second["reason"], second["first_step"]) == ("finished", first["last_step"] + 1)
    assert second["afresh"]
    assert "every_steps: 7" in run.config.read_text()
    finished = workplace.launch("resume", run.label)
    assert (finished.returncode, "is finished" in finished.stderr) == (2, True)


def test_a_worker_dies_with_its_task_and_the_run_can_go_on(workplace: Workplace) -> None:
    process, run, pids = start_long(workplace, STUB="deaf")
    parents = [
        int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids
    ]
    for parent in parents:
        os.kill(parent, signal.SIGKILL)

    eventually("the workers are gone", lambda: not any(is_running(pid) for pid in pids), 5)
    assert process.wait(timeout=60) == 1
    assert [line["reason"] for line in ledger_lines(run)] == ["crash"]
    # Its tasks could not release the run, the launcher could: nothing is to be watched.
    done = workplace.launch("resume", run.label, STUB_STEPS="3")
    assert (done.returncode, "watching" in done.stderr) == (0, False)


def test_the_others_leave_their_tracebacks_when_a_rank_dies(workplace: Workplace) -> None:
    done = workplace.launch("--config", "stub.yaml", STUB="kill:1", **LONG)

    [run] = workplace.runs
    assert "most recent call first" in run.rank_log(1, 0).read_text()
    assert "rank 0: ended after the failure" in done.stderr


def test_a_run_that_another_start_holds_is_refused(workplace: Workplace) -> None:
    process, run, _ = start_long(workplace)
    # As if its launcher were on a machine that cannot be asked.
    record = run.engine_files / "launcher.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"host": "elsewhere"}))

    done = workplace.launch("resume", run.label)

    assert (done.returncode, "is running already (process" in done.stderr) == (2, True)
    assert end(process, signal.SIGINT) == 130


@pytest.mark.parametrize("no_color", [True, False])
def test_a_terminal_has_colours_unless_they_are_unwanted(
    workplace: Workplace, no_color: bool
) -> None:
    screen, own = pty.openpty()
    environment = {**workplace.environment, "TERM": "xterm-256color", "STUB_STEPS": "5"}
    environment |= {"NO_COLOR": "1"} if no_color else {}
    process = subprocess.Popen(
        [sys.executable, "launch.py", "--config", "stub.yaml", "--set", "cluster.cpu_workers=1"],
        cwd=workplace.project,
        env=environment,
        stdin=own,
        stdout=own,
        stderr=own,
    )
    os.close(own)
    shown = ""
    with contextlib.suppress(OSError):  # the terminal's end, when the last program has left it
        while True:
            shown += os.read(screen, 4096).decode()
    os.close(screen)

    assert process.wait(timeout=60) == 0
    assert "top-1 90.50 %" in shown
    colours = re.findall(r"\x1b\[[0-9;]*[34][0-9][0-9;]*m", shown)
    assert bool(colours) != no_color


def test_output_that_is_piped_is_plain(workplace: Workplace) -> None:
    done = workplace.launch("--config", "stub.yaml", TERM="xterm-256color")
    others = [workplace.launch(each) for each in ("status", "logs")]

    for each in (done, *others):
        assert "\x1b" not in each.stdout + each.stderr
