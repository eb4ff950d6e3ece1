"""TensorBoard in one process of its own: serves a folder of links to runs and keeps it current.

jobs/board.py starts it as `python -m jobs.boardserver FOLDER PORT ROOT [RUN...]`. Without runs it
serves all below ROOT, also those that are still to come.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs import attachment, files, rundir
from jobs.rundir import RunDirectory

# Each reload looks at every event file, which a network file system feels.
RELOAD_SECONDS = 30
RECORD = "server.json"
LINKS = "runs"


@dataclass(frozen=True)
class Server:
    """What is known of a TensorBoard that serves."""

    host: str
    pid: int
    started: str
    """When the process began, in the kernel's ticks: a process id alone is used again."""
    port: int


def read(folder: Path) -> Server | None:
    """The server recorded in `folder`; None if there is none that can be read."""
    content = files.read_json(folder / RECORD)
    try:
        return Server(**content) if content else None
    except TypeError:
        return None


def main(arguments: list[str]) -> int:
    """Serve until TERM."""
    folder, port, root, *paths = arguments
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    links = Path(folder) / LINKS
    chosen = [RunDirectory(Path(path)) for path in paths]
    try:
        links.mkdir(parents=True, exist_ok=True)
        link_runs(links, chosen or rundir.all_runs(Path(root)), short=bool(chosen))
        serve(Path(folder), links, int(port))
        while True:
            time.sleep(RELOAD_SECONDS)
            # Storage that does not answer for a while, or a run deleted at this moment.
            with contextlib.suppress(OSError):
                link_runs(links, chosen or rundir.all_runs(Path(root)), short=bool(chosen))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def link_runs(links: Path, runs: list[RunDirectory], *, short: bool) -> None:
    """A link for each run that has curves; with `short`, elements of one sweep by what differs.

    To be `short` only where no other runs are to come: a run keeps the name that it has.

    Not the folder of all runs itself, of which TensorBoard would list every snapshot of the code
    again and again; and not --logdir_spec, which means the slow loader.
    """
    sweeps = {run.sweep for run in runs}
    short = short and len(sweeps) == 1 and None not in sweeps
    for run in runs:
        events = run.path / "tensorboard"
        link = links / (run.path.name if short else run.label)
        if events.is_dir() and not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(events.resolve())


def serve(folder: Path, links: Path, port: int) -> None:
    """Serve `links` in threads of this process, and record that."""
    from tensorboard import program

    board = program.TensorBoard()
    # Loopback only: a login node has other users, and TensorBoard asks for no password.
    options = {"--logdir": str(links), "--host": "127.0.0.1", "--port": str(port)}
    options |= {"--reload_interval": str(RELOAD_SECONDS), "--reload_multifile": "true"}
    board.configure(["tensorboard", *(word for pair in options.items() for word in pair)])
    url = board.launch()
    port = int(url.rstrip("/").rpartition(":")[2])
    pid = os.getpid()
    server = Server(socket.gethostname(), pid, attachment.start_of(pid), port)
    files.write_json(folder / RECORD, asdict(server))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
