"""How the ranks of one start of a job find each other: an address and a port that rank 0 publishes.

The file is named after the job and its restart count, so that no rank ever reads a stale one.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jobs import files
from jobs.deadline import Limits
from jobs.errors import WorkError
from jobs.files import write_json
from jobs.place import Place
from jobs.rundir import RunDirectory
from jobs.stop import StopRequest

PATIENCE_SECONDS = 120.0


class StoppedError(Exception):
    """A request to stop came before there was anything to save."""


@dataclass(frozen=True)
class Meeting:
    """Where the ranks meet, the number of the attempt that they are, and what Slurm grants it."""

    address: str
    port: int
    attempt: int
    limits: Limits = field(default_factory=Limits)


def publish(run: RunDirectory, place: Place, meeting: Meeting) -> None:
    """Let the other ranks read the meeting point."""
    write_json(_file(run, place), asdict(meeting))


def await_meeting(
    run: RunDirectory, place: Place, stop: StopRequest, patience: float = PATIENCE_SECONDS
) -> Meeting:
    """Wait for rank 0 to publish.

    Raises:
        WorkError: it did not within `patience` seconds.
        StoppedError: this rank was asked to stop meanwhile.
    """
    file = _file(run, place)
    deadline = time.monotonic() + patience
    while (meeting := _read(file)) is None:
        if time.monotonic() > deadline:
            raise WorkError(
                f"rank 0 did not publish its address as {file} within {patience:.0f} s; "
                "did it start, and do all nodes see the same run.root?"
            )
        if stop.signal:
            raise StoppedError(f"asked to stop by {stop.signal.name} before rank 0 had published")
        time.sleep(0.1)
    return meeting


def _read(file: Path) -> Meeting | None:
    # Listing the folder, not opening the file: a network file system caches for many seconds that
    # a file was missing, but a listing is asked of the server when the folder has changed.
    if file.name not in {entry.name for entry in file.parent.iterdir()}:
        return None
    content = files.read_json(file)
    return Meeting(**content | {"limits": Limits(**content["limits"])}) if content else None


def address_of(node: str, suffix: str = "") -> str:
    """The name under which the other nodes reach `node`, which is where this runs.

    With a suffix it is the node's name and that, where the fast network has names of its own. Else
    Slurm's own NodeAddr comes first: the controller reaches the node by it, also where node names
    are not in any name service. Then the node's name, then what the machine calls itself.
    """
    if suffix:
        return node + suffix
    for candidate in (_node_address(node), node):
        if candidate and _resolves(candidate):
            return candidate
    return socket.gethostname()


def _node_address(node: str) -> str | None:
    if not shutil.which("scontrol"):
        return None
    try:
        answer = subprocess.run(
            ["scontrol", "--oneliner", "show", "node", node],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    match = re.search(r"\bNodeAddr=(\S+)", answer.stdout)
    return match.group(1) if match else None


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def _file(run: RunDirectory, place: Place) -> Path:
    return run.engine_files / f"rendezvous-{place.start_key}.json"
