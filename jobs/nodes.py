"""`doctor --on-node`: a short job that makes the start-up check on the nodes that a run would get.

Its folder lies beside the runs, hidden, and goes with it; nothing else of it is left, however this
process ends, but by SIGKILL: then the job ends by itself and the folder stays.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.loader import dump_recipe
from jobs import controller, failure, files, reasons, rundir, slurm, snapshot, status
from jobs.errors import WorkError
from jobs.interruption import meet_dropped, uninterrupted
from jobs.layout import Layout
from jobs.preflight import Case
from jobs.rundir import RunDirectory
from jobs.slurm import RunExecutor
from jobs.text import duration

# It takes seconds, but from a cold network file system torch's import alone may take a minute.
MINUTES = 2
POLL_SECONDS = 1.0
# For squeue to know the job, and for a network file system to show what the nodes wrote.
PATIENCE_SECONDS = 30.0
# For the tasks of a cancelled job to be gone.
LEAVE_SECONDS = 10.0
REPORT = "nodes.json"
COLUMNS = ("RANK", "NODE", "DEVICE", "MEMORY", "FREE", "MATRIX", "ALL-REDUCE")


def examine(case: Case) -> int:
    """Look at the nodes and print their table; returns 1 if one is unfit, else 0.

    Raises:
        RequestError, WorkError: the job could not be queued or came to nothing.
    """
    plan = case.plan
    assert plan, "whoever calls this has checked the workers"
    run = RunDirectory(Path(case.recipe.run.root) / f".doctor-{secrets.token_hex(4)}")

    def fill(draft: RunDirectory) -> None:
        draft.engine_files.mkdir()
        draft.config.write_text(dump_recipe(case.recipe), encoding="utf-8")
        # Not into the store of the runs: of this one nothing is to be left.
        snapshot.copy_code(draft.code, draft.path / snapshot.STORE)
        if case.engine.name == "slurm":
            draft.script.write_text(_script(case, plan, run), encoding="utf-8")

    with rundir.create(run, case.recipe.run.mode, fill):
        try:
            look = _look_with_slurm if case.engine.name == "slurm" else _look_here
            return _show(look(run, case, plan))
        finally:
            shutil.rmtree(run.path, ignore_errors=True)


class _ProbeExecutor(RunExecutor):
    """Renders the job with the same options, and another command."""

    @property
    def _submitit_command_str(self) -> str:
        run = self._script.parent
        return shlex.join([sys.executable, "-u", "-m", "jobs.probe", str(run)])


def _script(case: Case, plan: Layout, run: RunDirectory) -> str:
    options = slurm.parameters(case.recipe, plan, run)
    extra = options["additional_parameters"]
    del extra["requeue"]
    extra["no-requeue"] = True
    options |= {"job_name": "doctor", "time": MINUTES, "signal_delay_s": 1}
    options |= {"setup": slurm.environment_lines(case.recipe.cluster, run), "teardown": []}
    executor = _ProbeExecutor(run)
    executor.update_parameters(**options)
    return executor.script()


def _look_with_slurm(run: RunDirectory, case: Case, plan: Layout) -> dict[str, Any]:
    with _job(run) as job:
        say(f"job {job}: {plan.describe()}, for {MINUTES} minutes at most; Ctrl-C cancels it")
        _await_end(job)
        report = _await_report(run)
    if report is None:
        raise WorkError(f"job {job} came to nothing{_last_words(run)}")
    return report


@contextlib.contextmanager
def _job(run: RunDirectory) -> Iterator[str]:
    """The queued job for the body of the with; cancelled if the body does not see its end."""
    meet_dropped()
    with contextlib.ExitStack() as held:
        held.enter_context(uninterrupted())
        job = controller.submit(run.script)
        try:
            held.close()  # a Ctrl-C that came meanwhile is met here
            yield job
        except BaseException:
            with uninterrupted():
                _cancel(job)
            raise


def _cancel(job: str) -> None:
    try:
        controller.cancel(job)
        say(f"job {job} is cancelled")
    except WorkError as error:
        say(f"job {job} is not cancelled: {error}")
    deadline = time.monotonic() + LEAVE_SECONDS
    while controller.state_and_reason(job)[0] in status.RUNNING | status.ENDING:
        # Until it has gone, it may write into the folder that is to be removed.
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS / 5)


def _await_end(job: str) -> None:
    """Wait for the end of a job, saying how it stands whenever that changes."""
    said, began, unseen_since = "", time.monotonic(), None
    while True:
        state, reason = controller.state_and_reason(job)
        if state in status.QUEUED:
            words = reasons.explain(reason)
        elif state in status.RUNNING | status.ENDING:
            words = "runs"
        elif state:
            return
        else:
            # The controller may have forgotten a job that has ended, or may be busy.
            unseen_since = unseen_since or time.monotonic()
            if time.monotonic() - unseen_since > PATIENCE_SECONDS:
                return
            words = said
        if state:
            unseen_since = None
        if words != said and words not in ("", "None"):
            say(f"job {job}: {words} ({duration(time.monotonic() - began)})")
            said = words
        time.sleep(POLL_SECONDS)


def _await_report(run: RunDirectory) -> dict[str, Any] | None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (report := files.read_json(run.path / REPORT)) is None:
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_SECONDS)
    return report


def _look_here(run: RunDirectory, case: Case, plan: Layout) -> dict[str, Any]:
    say(f"{plan.describe()}, on this machine")
    environment = controller.clean_environment() | controller.gpu_choice()
    key = f"local-{os.getpid()}"
    command = [sys.executable, "-m", "jobs.probe", str(run.path)]
    tasks = [
        subprocess.Popen(
            [*command, str(rank), str(plan.world_size), key],
            cwd=run.code,
            env=environment | case.recipe.cluster.env,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        for rank in range(plan.world_size)
    ]
    try:
        while any(task.poll() is None for task in tasks) and not any(t.returncode for t in tasks):
            time.sleep(POLL_SECONDS / 5)
    finally:
        for task in tasks:
            if task.poll() is None:
                os.killpg(task.pid, signal.SIGKILL)
            task.wait()
    report = files.read_json(run.path / REPORT)
    if report is None:
        raise WorkError(f"the look at this machine came to nothing{_last_words(run)}")
    return report


def _last_words(run: RunDirectory) -> str:
    """What the job and its ranks printed last."""
    logs = [*sorted(run.engine_files.glob("*_log.*")), *sorted(run.path.glob("attempt-*/rank-*"))]
    texts = {log.name: "\n".join(failure.tail(log)[-8:]) for log in logs}
    told = "".join(f"\n{name}:\n{text}" for name, text in texts.items() if text)
    return told or " and said nothing"


def _show(report: dict[str, Any]) -> int:
    """Print the table, what is wrong and what is worth a warning."""
    rows = [COLUMNS, *(_cells(row) for row in report["rows"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    side = report["rows"][0]["matrix_side"]
    print(
        f"MATRIX: one product of two {side} x {side} matrices. ALL-REDUCE: bytes of ResNet-50's\n"
        "gradients by seconds until all ranks have their sum (NCCL's algorithm bandwidth)."
    )
    for text in report["warnings"]:
        print(f"warn  {text}")
    for rank, text in report["faults"].items():
        print(f"fail  rank {rank} on {report['rows'][int(rank)]['node']} {text}")
    return 1 if report["faults"] else 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    bandwidth = row["all_reduce_gb_s"]
    return (
        str(row["rank"]),
        row["node"],
        row["device"],
        f"{row['memory_gb']:.0f} GB",
        f"{row['free_gb']:.0f} GB",
        f"{row['matrix_ms']:.1f} ms",
        "-" if bandwidth is None else f"{bandwidth:.2f} GB/s",
    )


def say(text: str) -> None:
    """Tell the person how it stands."""
    print(text, file=sys.stderr, flush=True)
