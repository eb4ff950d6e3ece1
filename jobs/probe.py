"""The task of one rank of `doctor --on-node`: it meets the others as a run does, and looks.

Under Slurm `python -m jobs.probe RUN`, without it `python -m jobs.probe RUN RANK WORLD_SIZE KEY`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from configs import read_resolved
from jobs import place, ports, rendezvous, worker
from jobs.errors import WorkError
from jobs.place import Place
from jobs.rendezvous import Meeting
from jobs.rundir import RunDirectory
from jobs.stop import StopRequest

ATTEMPT = 1


def look(run: RunDirectory, here: Place) -> int:
    """Start this rank's worker and see it to its end; returns its exit code.

    A signal ends this process and with it the worker: there is nothing to save.

    Raises:
        WorkError: the ranks did not meet.
    """
    cluster = read_resolved(run.config).cluster
    with contextlib.ExitStack() as held:
        if here.rank == 0:
            port = held.enter_context(ports.reserve())
            suffix = cluster.host_suffix
            address = rendezvous.address_of(here.node, suffix) if here.job_id else "127.0.0.1"
            meeting = Meeting(address, port.number, ATTEMPT)
            run.attempt(ATTEMPT).mkdir()
            rendezvous.publish(run, here, meeting)
        else:
            meeting = rendezvous.await_meeting(run, here, StopRequest())
        return worker.start(run, here, meeting, cluster, module="train.probe").wait()


def main(arguments: list[str]) -> int:
    """Look from one rank."""
    path, *local = arguments
    try:
        here = _on_this_machine(*local) if local else place.from_slurm(os.environ)
        return look(RunDirectory(Path(path)), here)
    except WorkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _on_this_machine(rank: str, world_size: str, start_key: str) -> Place:
    node = os.uname().nodename
    size = int(world_size)
    return Place(int(rank), int(rank), size, size, None, 0, node, (node,), start_key)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
