"""The task of one rank: a small parent without torch around the worker of train/.

It works out where the ranks meet, starts the worker, hands on the request to stop and reports how
the worker ended. Training code therefore never runs inside a signal handler, and the signal always
reaches a direct child of Slurm's step daemon, whatever process the site delivers signals to.

Under Slurm submitit calls `Task`; without Slurm jobs/local.py starts
`python -m jobs.task RUN RANK WORLD_SIZE START_KEY` for each rank and holds the other end of stdin.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from jobs import controller, failure, ledger, place, rendezvous
from jobs.errors import WorkError
from jobs.guard import Guard
from jobs.place import Place
from jobs.rendezvous import Meeting
from jobs.rundir import RunDirectory
from jobs.stop import StopRequest

STOPPED = 75
LAST_SAVE_SECONDS = 300.0


@dataclass(frozen=True)
class Task:
    """What submitit pickles: by reference to this class, so only the path travels."""

    run: str

    def __call__(self) -> None:
        """Run this rank on a compute node and leave with the worker's exit code.

        Raises:
            SystemExit: always; submitit passes it on, so Slurm records the code itself.
        """
        run = RunDirectory(Path(self.run))
        if not Path(__file__).resolve().is_relative_to(run.code.resolve()):
            sys.exit(f"error: jobs was imported from {__file__}, not from the snapshot {run.code}")
        sys.exit(attend(run, place.from_slurm(os.environ)))


def attend(run: RunDirectory, here: Place) -> int:
    """Start this rank's worker, see it to its end, and return the exit code of the rank."""
    stop = StopRequest.install()
    try:
        meeting = _open(run, here) if here.rank == 0 else rendezvous.await_meeting(run, here, stop)
    except WorkError as error:
        _say(run, here, f"rank {here.rank} on {here.node}: {error}")
        return 1
    log = run.rank_log(meeting.attempt, here.rank)
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as output:
        worker = subprocess.Popen(
            [sys.executable, "-u", "-m", "train", "--run", str(run.path)],
            cwd=run.code,
            env=worker_environment(dict(os.environ), run, here, meeting),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    guard = Guard(run, meeting.attempt, stop) if here.job_id is None else None
    code = _wait(worker, stop, guard)
    return _conclude(run, here, meeting.attempt, code, stop.signal)


def worker_environment(
    environment: dict[str, str], run: RunDirectory, here: Place, meeting: Meeting
) -> dict[str, str]:
    """`environment` with the torchrun variables of this rank and the snapshot's code first."""
    path = [str(run.code), *filter(None, [environment.get("PYTHONPATH")])]
    torchrun = {
        "RANK": here.rank,
        "LOCAL_RANK": here.local_rank,
        "WORLD_SIZE": here.world_size,
        "LOCAL_WORLD_SIZE": here.local_world_size,
        "MASTER_ADDR": meeting.address,
        "MASTER_PORT": meeting.port,
    }
    # A shell inside torchrun would make the worker look for that torchrun's store.
    worker = {k: v for k, v in environment.items() if not k.startswith("TORCHELASTIC_")}
    worker |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONFAULTHANDLER": "1"}
    worker |= {name: str(value) for name, value in torchrun.items()}
    cores = len(os.sched_getaffinity(0))
    if "SLURM_CPUS_PER_TASK" in environment and cores < (os.cpu_count() or 1):
        # Slurm has bound this task to its own cores; the worker would share them out once more.
        threads = min(cores, int(environment["SLURM_CPUS_PER_TASK"]))
        worker.setdefault("OMP_NUM_THREADS", str(threads))
    return worker


def _open(run: RunDirectory, here: Place) -> Meeting:
    """Rank 0: number the attempt, write it down, and tell the others where to meet."""
    attempt = ledger.open_attempt(run, here).attempt
    address = rendezvous.address_of(here.node) if here.job_id else "127.0.0.1"
    meeting = Meeting(address, rendezvous.free_port(), attempt)
    run.attempt(attempt).mkdir(exist_ok=True)
    rendezvous.publish(run, here, meeting)
    job = f"job {here.job_id}" if here.job_id else "this machine"
    nodes = ", ".join(here.nodes)
    _say(
        run,
        here,
        f"attempt {attempt}: {job} on {nodes}, {here.world_size} workers, code {run.code}, "
        f"meeting at {meeting.address}:{meeting.port}",
    )
    return meeting


def _wait(worker: subprocess.Popen[bytes], stop: StopRequest, guard: Guard | None) -> int:
    """Wait for the worker, handing on the first stop signal; returns its exit code."""
    handed_on = False
    while True:
        try:
            return worker.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            pass
        if stop.signal and not handed_on:
            worker.send_signal(stop.signal)
            handed_on = True
        if guard and guard.worker_must_end():
            worker.kill()


def _conclude(
    run: RunDirectory, here: Place, attempt: int, code: int, stopped_by: signal.Signals | None
) -> int:
    """Write down how the worker ended, start the job again if Slurm asked it to stop."""
    # A worker that had no handler yet dies of the signal itself: nothing was lost, it is a stop.
    stopped = code == STOPPED or (stopped_by is not None and code == -stopped_by)
    if code != 0 and not stopped:
        _report_failure(run, here, attempt, code)
    if here.rank == 0:
        first = failure.read(run, attempt)
        if stopped and first is None and here.job_id:
            _start_again(run, here, here.job_id)
        reason = _reason(run, here, first, stopped)
        ledger.close_attempt(run, attempt, reason, first.exit_code if first else code)
    elif stopped:
        # srun ends the whole step when one task leaves with an error; rank 0 may still be saving.
        deadline = time.monotonic() + LAST_SAVE_SECONDS
        while not ledger.is_closed(run, attempt) and time.monotonic() < deadline:
            time.sleep(0.2)
    if stopped:
        return STOPPED
    return code if code >= 0 else 128 - code


def _report_failure(run: RunDirectory, here: Place, attempt: int, code: int) -> None:
    log = run.rank_log(attempt, here.rank)
    mine = failure.Failure(here.rank, here.node, code, failure.tail(log))
    if failure.claim(run, attempt, mine):
        _say(run, here, f"attempt {attempt}: {mine.describe()}")
    else:
        how = failure.describe_exit(code)
        _say(run, here, f"attempt {attempt}: rank {here.rank} on {here.node} followed: {how}")


def _reason(
    run: RunDirectory, here: Place, first: failure.Failure | None, stopped: bool
) -> ledger.Reason:
    if run.cancelled(here.job).exists():
        return "cancelled"
    if first:
        return "configuration error" if first.exit_code == failure.CONFIGURATION_ERROR else "crash"
    return "stopped" if stopped else "finished"


def _start_again(run: RunDirectory, here: Place, job_id: str) -> None:
    """Requeue a job that Slurm asked to stop: its time is nearly up, or others need its nodes.

    A job that was preempted is told with TERM, as one that was cancelled is; but only that one is
    not RUNNING any more.
    """
    if run.cancelled(job_id).exists():
        problem: str | None = "it was cancelled"
    elif not controller.is_running(job_id):
        problem = "Slurm has ended it"
    else:
        problem = controller.requeue(job_id)
    if problem is None:
        _say(run, here, f"job {job_id} was asked to stop, has saved, and is requeued")
    else:
        words = f"job {job_id} was asked to stop, has saved, and is not requeued: {problem}"
        _say(run, here, f"{words}; to go on by hand: sbatch {run.script}")


def _say(run: RunDirectory, here: Place, text: str) -> None:
    """Tell the run's story and, under Slurm, the job's own log."""
    run.note(text)
    if here.job_id:
        print(text, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Attend one rank of a local run: RUN RANK WORLD_SIZE START_KEY."""
    path, rank, world_size, start_key = arguments
    here = Place(
        rank=int(rank),
        local_rank=int(rank),
        world_size=int(world_size),
        local_world_size=int(world_size),
        job_id=None,
        restart_count=0,
        node=os.uname().nodename,
        nodes=(os.uname().nodename,),
        start_key=start_key,
    )
    return attend(RunDirectory(Path(path)), here)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
