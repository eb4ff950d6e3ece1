"""How the ranks of one start of a job find each other: an address and a port that rank 0 publishes.

The port is probed free, below the ephemeral range (no outgoing connection takes it meanwhile), and
the file is named after the job and its restart count, so that no rank ever reads a stale one.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.errors import WorkError
from jobs.place import Place
from jobs.rundir import RunDirectory, write_json
from jobs.stop import StopRequest

LOWEST_PORT = 10_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Meeting:
    """Where the ranks meet, and the number of the attempt that they are."""

    address: str
    port: int
    attempt: int


def publish(run: RunDirectory, place: Place, meeting: Meeting) -> None:
    """Let the other ranks read the meeting point."""
    write_json(_file(run, place), asdict(meeting))


def await_meeting(
    run: RunDirectory, place: Place, stop: StopRequest, patience: float = PATIENCE_SECONDS
) -> Meeting:
    """Wait for rank 0 to publish.

    Raises:
        WorkError: it did not within `patience` seconds, or this rank was asked to stop.
    """
    file = _file(run, place)
    deadline = time.monotonic() + patience
    # Listing the folder, not opening the file: a network file system caches for many seconds that
    # a file was missing, but a listing is asked of the server when the folder has changed.
    while file.name not in {entry.name for entry in file.parent.iterdir()}:
        if time.monotonic() > deadline:
            raise WorkError(
                f"rank 0 did not publish its address as {file} within {patience:.0f} s; "
                "did it start, and do all nodes see the same run.root?"
            )
        if stop.signal:
            raise WorkError(f"asked to stop by {stop.signal.name} before rank 0 had published")
        time.sleep(0.1)
    return Meeting(**json.loads(file.read_text(encoding="utf-8")))


def free_port() -> int:
    """A port that nobody listens on, below those the kernel gives to outgoing connections.

    Raises:
        WorkError: 200 random ports were all taken.
    """
    highest = 32_767
    if EPHEMERAL_RANGE.exists():
        lowest_ephemeral = int(EPHEMERAL_RANGE.read_text().split()[0])
        # A site may have widened the range down to 1024; then there is nothing below it to choose.
        highest = lowest_ephemeral - 1 if lowest_ephemeral > LOWEST_PORT + 1000 else highest
    for _ in range(200):
        port = random.randint(LOWEST_PORT, highest)  # noqa: S311 - not a secret
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise WorkError(f"no free port found between {LOWEST_PORT} and {highest}")


def address_of(node: str) -> str:
    """The name under which the other nodes reach `node`, which is where this runs.

    Slurm's own NodeAddr comes first: the controller reaches the node by it, also where node names
    are not in any name service. Then the node's name, then what the machine calls itself.
    """
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
