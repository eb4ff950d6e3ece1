"""The local engine: one task a worker on this machine, attached, with a progress bar."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from configs.schema import Recipe
from jobs import attachment, controller, digest, failure, lease, ledger, metrics, settle, text
from jobs.errors import RequestError, WorkError
from jobs.guard import SAVE_SECONDS
from jobs.interruption import Interrupt
from jobs.layout import Layout
from jobs.progress import Display
from jobs.rundir import RunDirectory

POLL_SECONDS = 0.2
# For a task to see its worker off after that.
LAST_SECONDS = 10.0

Task = subprocess.Popen[bytes]


def run_attached(run: RunDirectory, recipe: Recipe, plan: Layout, interrupt: Interrupt) -> int:
    """Run all workers to their end, showing progress; returns the exit code.

    `interrupt` watches already, so that from its first moment on a run either goes on or is stopped
    as a run.

    Raises:
        RequestError: a worker refused the request.
        WorkError: a worker failed.
    """
    print(f"{plan.describe()}, in {text.path_from_here(run.path)}", file=sys.stderr)
    if recipe.cluster.setup:
        print("cluster.setup is for Slurm jobs and is not run here", file=sys.stderr)
    started = time.monotonic()
    start_key = f"local-{os.getpid()}-{secrets.token_hex(4)}"
    attachment.attach(run, start_key)
    before = len(ledger.read(run))
    try:
        with _tasks(run, recipe, plan, start_key) as tasks:
            code = _attend(run, recipe, tasks, interrupt, before)
    finally:
        _settle(run, start_key)
        attachment.detach(run)
    seconds = time.monotonic() - started
    if interrupt.count:
        print(f"stopped after {text.duration(seconds)}", file=sys.stderr)
        return 130
    if code == failure.CONFIGURATION_ERROR and len(ledger.read(run)) == before:
        # Refused before an attempt was opened; rank 0's task has said why, and others that they
        # were not told where to meet.
        refusals = [line for line in failure.tail(run.launcher_log) if "error: " in line]
        story = refusals or [f"refused, and {run.launcher_log} does not say why"]
        raise RequestError(story[-1].partition("error: ")[2] or story[-1])
    if code:
        _raise_failure(run, code)
    _report(run, seconds)
    return 0


@contextlib.contextmanager
def _tasks(run: RunDirectory, recipe: Recipe, plan: Layout, start_key: str) -> Iterator[list[Task]]:
    """One task process a rank; whatever happens, none of them or of theirs is left."""
    environment = controller.clean_environment() | controller.gpu_choice() | recipe.cluster.env
    tasks: list[Task] = []
    # Nobody writes to this pipe. Its only writing end is here, so the tasks see it close when this
    # process ends in any way, SIGKILL included, and stop their workers.
    reading, writing = os.pipe()
    try:
        with run.launcher_log.open("ab") as log:
            for rank in range(plan.world_size):
                arguments = [str(run.path), str(rank), str(plan.world_size), start_key]
                task = subprocess.Popen(
                    [sys.executable, "-m", "jobs.task", *arguments],
                    cwd=run.code,
                    env=environment,
                    stdin=reading,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C in the terminal is for this process alone, which then asks them once.
                    start_new_session=True,
                )
                tasks.append(task)
        yield tasks
    finally:
        for task in tasks:
            # Only while the task is not waited for is its id certainly still its own.
            if task.poll() is None:
                os.killpg(task.pid, signal.SIGKILL)
                task.wait()
        os.close(reading)
        os.close(writing)


def _attend(
    run: RunDirectory, recipe: Recipe, tasks: list[Task], interrupt: Interrupt, before: int
) -> int:
    """Wait for all tasks, which see to their workers; returns 0 or the code of the first to fail.

    `before` is the number of attempts that were over when this one began.
    """
    asked = 0
    is_ending = False
    failed: dict[int, int] = {}
    give_up_at: float | None = None
    with Display(recipe.schedule.epochs) as display:
        going_on = True
        while going_on:
            time.sleep(POLL_SECONDS)
            # Before the look at how each has ended, so that none ends unseen.
            going_on = None in [task.poll() for task in tasks]
            display.update(metrics.progress(run))
            if interrupt.count > asked:
                asked = interrupt.count
                display.say("stopping: the workers save and leave; Ctrl-C again ends them at once")
                _end(tasks, signal.SIGTERM)
                is_ending = True
            for rank, task in enumerate(tasks):
                if task.returncode and rank not in failed:
                    failed[rank] = task.returncode
                    # A task that has just begun dies of our own signal.
                    if not (is_ending and task.returncode == -signal.SIGTERM):
                        _note_lost_task(run, rank, task, before)
                    if not _has_failed(run, before):
                        # It told nobody, because it found no place to; else they know themselves.
                        _end(tasks, signal.SIGTERM)
                        is_ending = True
            if (asked or failed) and give_up_at is None:
                give_up_at = time.monotonic() + SAVE_SECONDS + LAST_SECONDS
            if give_up_at and time.monotonic() > give_up_at:
                break
    return next(iter(failed.values()), 0)


def _settle(run: RunDirectory, start_key: str) -> None:
    """Do what rank 0's task could not do if it was killed."""
    lease.release(run, start_key)
    attempts = ledger.read(run)
    if attempts and attempts[-1].end is None:
        settle.settle_here(run, attempts[-1], start_key)


def _end(tasks: list[Task], number: signal.Signals) -> None:
    for task in tasks:
        if task.poll() is None:
            task.send_signal(number)


def _note_lost_task(run: RunDirectory, rank: int, task: Task, before: int) -> None:
    """A task that was killed could not tell the others that its worker is gone."""
    attempts = ledger.read(run)[before:]
    if task.returncode < 0 and attempts:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(task.pid, signal.SIGKILL)
        lost = failure.Failure(rank, socket.gethostname(), task.returncode, [])
        failure.claim(run, attempts[-1].attempt, lost)


def _has_failed(run: RunDirectory, before: int) -> bool:
    attempts = ledger.read(run)[before:]
    return bool(attempts) and failure.is_claimed(run, attempts[-1].attempt)


def _raise_failure(run: RunDirectory, code: int) -> None:
    attempts = ledger.read(run)
    first = failure.read(run, attempts[-1].attempt) if attempts else None
    story = text.path_from_here(run.launcher_log)
    print(f"the run's story: {story}", file=sys.stderr)
    if first is None:
        raise WorkError(f"the run ended with {failure.describe_exit(code)}")
    if first.exit_code == failure.CONFIGURATION_ERROR:
        raise RequestError(*first.last_words().splitlines())
    raise WorkError(digest.write(run, attempts[-1].attempt) or first.describe())


def _report(run: RunDirectory, seconds: float) -> None:
    results = metrics.results(run)
    if results is None:
        raise WorkError(f"every worker ended well, but {run.results} is missing")
    best = results["best"]
    print(
        f"finished in {text.duration(seconds)}\n"
        f"top-1 {results['accuracy_top-1']:.2f} %, top-5 {results['accuracy_top-5']:.2f} % "
        f"(best top-1 {best['accuracy_top-1']:.2f} % after epoch {best['epoch']})\n"
        f"run directory: {text.path_from_here(run.path)}"
    )
    print(text.next_commands(run, ("tensorboard", "status", "logs")))
