"""Which process a local run is attached to: while that lives, the run does."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jobs import files
from jobs.files import write_json
from jobs.rundir import RunDirectory, warning


@dataclass(frozen=True)
class Launcher:
    """The process that started a local run and shows its progress."""

    host: str
    pid: int
    started: str
    """When the process began, in the kernel's ticks: a process id alone is used again. Empty when
    the process has seen the run to its end, and may carry another."""
    start_key: str

    def is_alive(self) -> bool | None:
        """Whether it runs; None if that cannot be told from this machine."""
        if self.host != socket.gethostname():
            return None
        return bool(self.started) and start_of(self.pid) == self.started


def attach(run: RunDirectory, start_key: str) -> None:
    """Record that this process carries `run`."""
    pid = os.getpid()
    launcher = Launcher(socket.gethostname(), pid, start_of(pid), start_key)
    write_json(_file(run), asdict(launcher))


def detach(run: RunDirectory) -> None:
    """Record that this process no longer carries `run`."""
    launcher = read(run)
    if launcher:
        with warning("cannot note that the run has ended"):
            write_json(_file(run), asdict(replace(launcher, started="")))


def read(run: RunDirectory) -> Launcher | None:
    """The process that a local run is or was attached to; None for other runs."""
    content = files.read_json(_file(run))
    try:
        return Launcher(**content) if content else None
    except TypeError:
        return None


def _file(run: RunDirectory) -> Path:
    return run.engine_files / "launcher.json"


def start_of(pid: int) -> str:
    """When a process of this machine began, in the kernel's ticks; empty if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    # The second field is the program's name in parentheses and may hold spaces itself.
    fields = stat.rpartition(")")[2].split()
    # A zombie has ended; only nobody has asked yet how.
    return "" if fields[0] == "Z" else fields[19]
