"""A cluster of the drills' own, and what is done to it and to the run that is on it.

All nodes share this machine, so a node is known by what Slurm sets in its processes. Only processes
of this cluster and of the drill's own job are ever killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from tests.slurm.conftest import start_cluster, state_folder

# Drills kill daemons, which no other test's cluster would like.
STATE = Path(state_folder("drill"))


def kill_daemon(name: str) -> None:
    """End one of the cluster's daemons with SIGKILL; `repair` starts it again."""
    pid = (STATE / "run" / f"{name}.id").read_text().split()[0]
    os.kill(int(pid), signal.SIGKILL)


def repair() -> None:
    """Start again what has died of the cluster."""
    start_cluster(str(STATE))


def kill_node(node: str, job: str) -> None:
    """End a node's slurmd and all that it runs of a job, as a loss of power would."""
    kill_daemon(node)
    victims = _step_daemons(node) + job_processes(job, SLURMD_NODENAME=node)
    assert victims, f"nothing of job {job} runs on {node}"
    for pid in victims:
        _kill(pid)


def kill_worker(job: str, rank: int) -> None:
    """End the worker of one rank with SIGKILL, and not the task around it."""
    # Only the worker has RANK in its environment; the task has what Slurm gave it.
    [pid] = [each for each in job_processes(job, RANK=str(rank)) if _is_worker(each)]
    _kill(pid)


def job_processes(job: str, **variables: str) -> list[int]:
    """The processes of a job of this cluster whose environment has all these variables."""
    wanted = {"SLURM_CONF": f"{STATE}/etc/slurm.conf", "SLURM_JOB_ID": job, **variables}
    return [pid for pid in _pids() if wanted.items() <= _environment(pid).items()]


def _step_daemons(node: str) -> list[int]:
    """The node's slurmstepds: they wipe their environment, but keep the log of their slurmd."""
    log = str(STATE / "log" / f"{node}.log")
    return [pid for pid in _pids() if _name(pid) == "slurmstepd" and log in _open_files(pid)]


def _is_worker(pid: int) -> bool:
    words = _read(pid, "cmdline").split(b"\0")
    return b"train" in words and b"--run" in words


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _environment(pid: int) -> Mapping[str, str]:
    words = _read(pid, "environ").decode(errors="replace").split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def _name(pid: int) -> str:
    return _read(pid, "comm").decode().strip()


def _open_files(pid: int) -> set[str]:
    try:
        return {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:  # it has ended meanwhile
        return set()


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it went with another that was killed
        os.kill(pid, signal.SIGKILL)
