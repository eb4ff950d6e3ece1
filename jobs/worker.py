"""The worker process of one rank: its environment, its birth, and its end when it must."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable

from configs.cluster import Cluster
from jobs import interfaces, layout
from jobs.place import Place
from jobs.rendezvous import Meeting
from jobs.rundir import RunDirectory

PR_SET_PDEATHSIG = 1
DUMP_SECONDS = 3.0
# Loaded here: between fork and exec nothing may be.
_LIBC = ctypes.CDLL(None)

# glibc gives big pieces of memory back to the system at each step and has them cleared again at the
# next. A worker that keeps them, in huge pages, takes 8 to 11 % less time for a step on a CPU
# (docs/performance.md). The names: GNU C Library manual, "Memory Allocation Tunables".
KEEP_MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:"
    f"glibc.malloc.trim_threshold={2**34}"
}

Worker = subprocess.Popen[bytes]


def start(
    run: RunDirectory, here: Place, meeting: Meeting, cluster: Cluster, module: str = "train"
) -> Worker:
    """Start the worker of this rank, a module of train/; what it prints goes to the rank's log."""
    with run.rank_log(meeting.attempt, here.rank).open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", module, "--run", str(run.path)],
            cwd=run.code,
            env=environment(dict(os.environ), run, here, meeting, cluster),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Safe here: one thread alone runs Python in this process, so no other can hold a lock
            # at the fork; and the kernel sends the signal when the thread that forked ends, which
            # is this one, with the process.
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - see above
        )


def environment(
    variables: dict[str, str],
    run: RunDirectory,
    here: Place,
    meeting: Meeting,
    cluster: Cluster,
) -> dict[str, str]:
    """`variables` with the torchrun variables of this rank and the snapshot's code first."""
    path = [str(run.code), *filter(None, [variables.get("PYTHONPATH")])]
    torchrun = {
        "RANK": here.rank,
        "LOCAL_RANK": here.local_rank,
        "WORLD_SIZE": here.world_size,
        "LOCAL_WORLD_SIZE": here.local_world_size,
        "MASTER_ADDR": meeting.address,
        "MASTER_PORT": meeting.port,
    }
    # A shell inside torchrun would make the worker look for that torchrun's store.
    worker = {k: v for k, v in variables.items() if not k.startswith("TORCHELASTIC_")}
    worker |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONFAULTHANDLER": "1"}
    worker |= {name: str(value) for name, value in torchrun.items()}
    cores = len(os.sched_getaffinity(0))
    if "SLURM_CPUS_PER_TASK" in variables and cores < (os.cpu_count() or 1):
        # Slurm has bound this task to its own cores; the worker would share them out once more.
        threads = min(cores, int(variables["SLURM_CPUS_PER_TASK"]))
        worker.setdefault("OMP_NUM_THREADS", str(threads))
    kept = {} if layout.count_gpus(variables) else KEEP_MEMORY
    return kept | _defaults(run, here, meeting, cluster) | worker


def _defaults(run: RunDirectory, here: Place, meeting: Meeting, cluster: Cluster) -> dict[str, str]:
    """What a recipe's cluster.env may replace."""
    # When a collective fails, NCCL's last operations on each rank say who was waiting for whom.
    chosen = {
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_FR_DUMP_TEMP_FILE": str(run.attempt(meeting.attempt) / "flight-recorder-"),
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    }
    if cluster.interface:
        names = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
        chosen |= dict.fromkeys(names, cluster.interface)
    elif len(here.nodes) > 1 and (found := interfaces.towards([meeting.address, *here.nodes])):
        # Gloo takes the one of the node's own name, which is the loopback on many systems.
        chosen["GLOO_SOCKET_IFNAME"] = found
    return chosen


def end_with_traceback(worker: Worker) -> None:
    """End a worker that waits for one that has failed, its threads' tracebacks in its log."""
    with contextlib.suppress(OSError, ValueError):
        # A core file would take longer to write than there is time, and nobody wants it.
        resource.prlimit(worker.pid, resource.RLIMIT_CORE, (0, 0))
    worker.send_signal(signal.SIGABRT)
    try:
        worker.wait(timeout=DUMP_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def _die_with(parent: int) -> Callable[[], None]:
    """What a child does first, so that it never outlives a parent that was killed."""

    def bind() -> None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return bind
