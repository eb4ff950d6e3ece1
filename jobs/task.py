"""The task of one rank: a small parent without torch around the worker of train/.

It works out where the ranks meet, starts the worker, hands on the request to stop and writes down
how the worker ended. Training code therefore never runs inside a signal handler, and the signal
always reaches a direct child of Slurm's step daemon, whatever process the site delivers signals to.
What follows from the end is decided when all tasks are gone, in jobs/settle.py.

Under Slurm submitit calls `Task`; without Slurm jobs/local.py starts
`python -m jobs.task RUN RANK WORLD_SIZE START_KEY` for each rank and holds the other end of stdin.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from configs import RecipeError, origin, read_resolved
from configs.cluster import Cluster
from jobs import (
    ending,
    failure,
    lease,
    linetimes,
    memory,
    metrics,
    opening,
    place,
    refusal,
    rendezvous,
    settle,
    snapshot,
    worker,
)
from jobs.deadline import Deadline
from jobs.ending import Ending, How
from jobs.errors import RequestError, WorkError
from jobs.guard import Guard, Verdict
from jobs.place import Place
from jobs.rendezvous import Meeting, StoppedError
from jobs.rundir import RunDirectory
from jobs.stop import STOP_SIGNALS, StopRequest
from jobs.worker import Worker

STOPPED = 75
UNFIT = 76
# How long the others have to print their tracebacks before this task's end makes srun end them:
# until they look, then until they are killed.
FAREWELL_SECONDS = 4.0


@dataclass(frozen=True)
class Task:
    """What submitit pickles: by reference to this class, so only the path travels."""

    run: str

    def __call__(self) -> NoReturn:
        """Run this rank on a compute node and leave with a code that Slurm records."""
        _leave(attend(RunDirectory(Path(self.run)), place.from_slurm(os.environ)))


def attend(run: RunDirectory, here: Place) -> int:
    """Start this rank's worker, see it to its end, and return the exit code of the task.

    A task whose worker stopped on request leaves with 0, so that srun does not end the others.
    """
    stop = StopRequest.install()
    try:
        with contextlib.ExitStack() as held:
            _leave_if_finished(run, here)
            _refuse_other_code(run, here)
            cluster = read_resolved(run.config).cluster
            if here.rank == 0:
                opened = held.enter_context(opening.hold(run, here, cluster, stop))
                meeting, own_lease = opened.meeting, opened.lease
            else:
                meeting, own_lease = rendezvous.await_meeting(run, here, stop), None
            code = _attend_worker(run, here, cluster, meeting, stop, own_lease)
            if own_lease and here.job_id is None:
                settle.settle_here(run, opened.entry, here.job)
            return code
    except StoppedError as words:
        say(run, here, f"rank {here.rank} on {here.node}: {words}")
        return 0
    except (RequestError, RecipeError) as error:
        say(run, here, f"error: {error}")
        if here.job_id:
            refusal.record(run, here.start_key, str(error))
        return failure.CONFIGURATION_ERROR
    except (WorkError, OSError) as error:
        say(run, here, f"rank {here.rank} on {here.node}: {error}")
        return 1


def _leave_if_finished(run: RunDirectory, here: Place) -> None:
    # Slurm may start a preempted job once more by itself, after it was requeued and has finished.
    if here.job_id and metrics.results(run) is not None:
        raise StoppedError("the run has finished already, so there is nothing to do")


def _refuse_other_code(run: RunDirectory, here: Place) -> None:
    objection = origin.objection(run.code)
    if objection:
        raise RequestError(objection)
    if here.rank == 0 and (changed := snapshot.changed_files(run.code)):
        raise RequestError(
            f"{run.code} is not the code that was submitted, {', '.join(changed[:5])} "
            f"{'has' if len(changed) == 1 else 'have'} changed: that would be another run, start "
            "one from the project"
        )


def _attend_worker(
    run: RunDirectory,
    here: Place,
    cluster: Cluster,
    meeting: Meeting,
    stop: StopRequest,
    own_lease: lease.Lease | None,
) -> int:
    clock = Deadline(run, meeting.limits, here.job_id)
    guard = Guard(run, meeting.attempt, stop, clock if here.job_id else None, own_lease)
    kills = memory.count_kills()
    process = worker.start(run, here, meeting, cluster)
    times = linetimes.Clock(run.rank_log(meeting.attempt, here.rank))
    verdict, seconds_left = _wait(process, stop, guard, clock, times)
    times.look()
    code = process.returncode
    how = _how_it_ended(code, verdict)
    unfit_words = ""
    if how == "failed":
        killed = memory.count_kills() > kills
        mine = failure.examine(run, meeting.attempt, here.rank, code, killed=killed)
        _report(run, here, meeting.attempt, mine)
    elif how == "unfit":
        lines = failure.tail(run.rank_log(meeting.attempt, here.rank))
        unfit_words = "\n".join(lines).rpartition("error: ")[2]
    name = stop.signal.name if stop.signal else None
    told = Ending(here.rank, here.node, how, code, name, seconds_left, stop.by_clock, unfit_words)
    ending.record(run, meeting.attempt, told)
    if how in ("failed", "unfit") and here.world_size > 1:
        time.sleep(FAREWELL_SECONDS)
    if how == "unfit":
        return UNFIT
    # A worker that died of the signal has not agreed with the others on a step, and they may wait
    # for it: this code makes srun end them, and says that it was a stop.
    if how == "failed" or -code in STOP_SIGNALS:
        return code if code >= 0 else 128 - code
    return 0


def _wait(
    process: Worker, stop: StopRequest, guard: Guard, clock: Deadline, times: linetimes.Clock
) -> tuple[Verdict | None, float | None]:
    """See the worker to its end, handing on the first stop signal.

    Returns:
        why this task has ended it, if it has; the seconds to the time limit when it was to stop.
    """
    handed_on = False
    seconds_left: float | None = None
    while True:
        try:
            process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            pass
        else:
            return None, clock.seconds_left() if seconds_left is None else seconds_left
        times.look()
        verdict = guard.look()
        if stop.signal and not handed_on:
            seconds_left = clock.seconds_left()
            process.send_signal(stop.signal)
            handed_on = True
        if verdict == "followed":
            worker.end_with_traceback(process)
        elif verdict:
            process.kill()
            process.wait()
        if verdict:
            return verdict, seconds_left


def _how_it_ended(code: int, verdict: Verdict | None) -> How:
    if code == 0:
        return "done"
    if code == STOPPED:
        return "stopped"
    if code == UNFIT:
        return "unfit"
    if verdict:
        return verdict
    # A worker that had no handler yet dies of the signal itself: nothing was lost, it is a stop.
    # It may have met the worker first, where Slurm sends signals to the whole tree of processes.
    return "stopped" if -code in STOP_SIGNALS else "failed"


def _report(run: RunDirectory, here: Place, attempt: int, mine: failure.Failure) -> None:
    if failure.claim(run, attempt, mine):
        say(run, here, f"attempt {attempt}: {mine.describe()}")
    else:
        say(
            run,
            here,
            f"attempt {attempt}: rank {here.rank} on {here.node} followed: {mine.summarize()}",
        )


def say(run: RunDirectory, here: Place, text: str) -> None:
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


def _leave(code: int) -> NoReturn:
    """End as launch.py does: Python's own end is a sixth of a task's time.

    All that was told has been flushed, by `say` and by submitit's log.
    """
    os._exit(code)


if __name__ == "__main__":
    _leave(main(sys.argv[1:]))
