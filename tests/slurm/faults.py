"""Faults of a site and of requests, and how each is planted on the real cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.jobs.workplace import Workplace

STATE = Path("/var/lib/slurm-devcluster-faults")
CONF = STATE / "etc" / "slurm.conf"


@dataclass(frozen=True)
class Site:
    """A healthy project on a healthy cluster, until something is planted."""

    workplace: Workplace

    @property
    def project(self) -> Path:
        return self.workplace.project

    @property
    def archive(self) -> Path:
        return self.project / "data" / "cifar-10-python.tar.gz"

    @property
    def weights(self) -> Path:
        [file] = (self.project / "weights").iterdir()
        return file

    def slurm(self, *command: str) -> None:
        subprocess.run(command, env=dict(self.workplace.environment), check=True)

    def run(
        self, *arguments: str, prefix: tuple[str, ...] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, sys.executable, "launch.py", *arguments],
            cwd=self.project,
            env={**self.workplace.environment, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


Plant = Callable[[Site], AbstractContextManager[dict[str, str] | None]]


@contextlib.contextmanager
def truncated_archive(site: Site) -> Iterator[None]:
    site.archive.write_bytes(site.archive.read_bytes()[:-4])
    yield


@contextlib.contextmanager
def unreadable_archive(site: Site) -> Iterator[None]:
    site.archive.chmod(0)
    yield


@contextlib.contextmanager
def unreadable_weights(site: Site) -> Iterator[None]:
    site.weights.chmod(0)
    yield


@contextlib.contextmanager
def no_weights(site: Site) -> Iterator[None]:
    site.weights.unlink()
    yield


@contextlib.contextmanager
def other_weights(site: Site) -> Iterator[None]:
    site.weights.write_bytes(b"another checkpoint")
    yield


def disk(folder: str, options: str) -> Plant:
    """A small file system in memory over a folder of the project."""

    @contextlib.contextmanager
    def plant(site: Site) -> Iterator[dict[str, str]]:
        where = site.project / folder
        where.mkdir(exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
        if subprocess.run(mount, check=False).returncode:
            pytest.skip("a small disk needs the right to mount")
        try:
            with contextlib.suppress(OSError):
                (where / "ballast").write_bytes(bytes(2**20))
            yield {"HOME": str(where)} if folder == "home" else {}
        finally:
            subprocess.run(["umount", str(where)], check=True)

    return plant


@contextlib.contextmanager
def nodes_elsewhere(site: Site) -> Iterator[None]:
    """The nodes of the partition are other machines, as far as Slurm knows."""
    site.slurm("scontrol", "update", "NodeName=node[1-3]", "NodeHostname=far[1-3]")
    try:
        yield
    finally:
        [host] = {os.uname().nodename.partition(".")[0]}
        for node in ("node1", "node2", "node3"):
            site.slurm("scontrol", "update", f"NodeName={node}", f"NodeHostname={host}")


def partition(name: str, planted: str, healthy: str) -> Plant:
    """A partition that is another while the fault is planted."""

    @contextlib.contextmanager
    def plant(site: Site) -> Iterator[None]:
        site.slurm("scontrol", "update", f"PartitionName={name}", planted)
        try:
            yield
        finally:
            site.slurm("scontrol", "update", f"PartitionName={name}", healthy)

    return plant


def configured(*lines: str) -> Plant:
    """A controller that has read other lines in slurm.conf."""

    @contextlib.contextmanager
    def plant(site: Site) -> Iterator[None]:
        before = CONF.read_text()
        names = [line.partition("=")[0] for line in lines]
        kept = [line for line in before.splitlines() if line.partition("=")[0] not in names]
        CONF.write_text("\n".join([*lines, *kept, ""]))
        try:
            site.slurm("scontrol", "reconfigure")
            yield
        finally:
            CONF.write_text(before)
            site.slurm("scontrol", "reconfigure")

    return plant


@contextlib.contextmanager
def short_qos(site: Site) -> Iterator[None]:
    site.slurm("sacctmgr", "--immediate", "--quiet", "add", "qos", "short", "MaxWall=00:10:00")
    try:
        yield
    finally:
        site.slurm("sacctmgr", "--immediate", "--quiet", "delete", "qos", "short")


@contextlib.contextmanager
def silent_controller(site: Site) -> Iterator[None]:
    pid = int((STATE / "run" / "slurmctld.id").read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def cpu_build(site: Site) -> Iterator[dict[str, str]]:
    folder = site.project / "packages"
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text("raise ImportError('nobody may import this')\n")
    (folder / "torch-2.9.0+cpu.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: torch\nVersion: 2.9.0+cpu\n"
    (folder / "torch-2.9.0+cpu.dist-info" / "METADATA").write_text(metadata)
    yield {"PYTHONPATH": str(folder)}


@contextlib.contextmanager
def nothing(_site: Site) -> Iterator[None]:
    yield


@dataclass(frozen=True)
class Fault:
    """What is wrong, as a setting or a change of the site, and what doctor is to say of it.

    `remedy`: what its remedy names.
    """

    level: str
    row: str
    text: str
    remedy: str
    settings: tuple[str, ...] = ()
    plant: Plant = nothing


FAULTS = {
    "archive missing": Fault(
        "fail", "archive", "is missing", "download https://", ("data.root=elsewhere",)
    ),
    "archive truncated": Fault(
        "fail", "MD5", "is truncated or damaged", "bring it again", plant=truncated_archive
    ),
    "archive of another size": Fault(
        "fail",
        "archive",
        "the official archive 170,498,071",
        "set data.md5",
        ("data.md5=official",),
    ),
    "archive with another sum": Fault(
        "fail", "MD5", "data.md5 asks for 0000", "bring it again", (f"data.md5='{'0' * 32}'",)
    ),
    "archive unreadable": Fault(
        "fail", "archive", "cannot be read (Permission denied)", "right", plant=unreadable_archive
    ),
    "weights missing": Fault("fail", "weights", "is missing", "name another", plant=no_weights),
    "weights unreadable": Fault(
        "fail", "weights", "cannot be read (Permission denied)", "right", plant=unreadable_weights
    ),
    "weights that belie their name": Fault(
        "fail", "SHA-256", "of its name", "rename it", plant=other_weights
    ),
    "run root full": Fault("fail", "space", "free", "run.root", plant=disk("logs", "size=8m")),
    "run root too small": Fault(
        "warn", "space", "the run keeps 0.8 GB", "run.root", plant=disk("logs", "size=400m")
    ),
    "run root without inodes": Fault(
        "fail", "space", "more files", "run.root", plant=disk("logs", "size=2g,nr_inodes=100")
    ),
    "run root read-only": Fault(
        "fail", "run root", "cannot be written", "name a folder", plant=disk("logs", "size=2g,ro")
    ),
    "run root below a file": Fault(
        "fail", "run root", "launch.py is not a folder", "name a folder", ("run.root=launch.py/x",)
    ),
    "home full": Fault("warn", "home", "it is full", "make room", plant=disk("home", "size=1m")),
    "all on a local disk": Fault(
        "warn",
        "storage",
        "run.root, data.root, model.weights, ",
        "cluster.shared",
        plant=nodes_elsewhere,
    ),
    "environment on a local disk": Fault(
        "warn",
        "storage",
        "the Python environment",
        "storage that every node mounts",
        ("cluster.shared=[PROJECT]",),
        nodes_elsewhere,
    ),
    "unknown partition": Fault(
        "fail", "sbatch", "cluster.partition", "gpu (default), low", ("cluster.partition=gpus",)
    ),
    "too many GPUs": Fault(
        "fail",
        "sbatch",
        "cluster.gpus_per_node: Slurm refuses 8",
        "3 nodes with gpu:4",
        ("cluster.gpus_per_node=8",),
    ),
    "too many nodes": Fault(
        "fail", "sbatch", "cluster.nodes: Slurm refuses 4", "has 3 nodes", ("cluster.nodes=4",)
    ),
    "time over the partition's limit": Fault(
        "fail",
        "partition",
        "cluster.time_limit: 00:30:00 is over the 00:10:00",
        "set it to 00:10:00 or less",
        ("cluster.partition=low",),
        partition("low", "MaxTime=00:10:00", "MaxTime=UNLIMITED"),
    ),
    "nodes over the partition's limit": Fault(
        "fail",
        "partition",
        "cluster.nodes: 2 are over the 1",
        "set it to 1",
        ("cluster.partition=low",),
        partition("low", "MaxNodes=1", "MaxNodes=UNLIMITED"),
    ),
    "partition down": Fault(
        "warn",
        "partition",
        "is DOWN",
        "gpu (default), low",
        ("cluster.partition=low",),
        partition("low", "State=DOWN", "State=UP"),
    ),
    "unknown account, not enforced": Fault(
        "warn", "account", "no account vision", "research", ("cluster.account=vision",)
    ),
    "unknown account, enforced": Fault(
        "fail",
        "account",
        "no account vision",
        "research",
        ("cluster.account=vision",),
        configured("AccountingStorageEnforce=associations"),
    ),
    "unknown QOS": Fault("warn", "account", "quality of service", "normal", ("cluster.qos=fast",)),
    "time over the QOS's limit": Fault(
        "fail", "account", "cluster.time_limit", "ask for less", ("cluster.qos=short",), short_qos
    ),
    "requeue disabled": Fault(
        "warn", "requeue", "JobRequeue is 0", "resume", plant=configured("JobRequeue=0")
    ),
    "KillWait too short": Fault(
        "warn", "requeue", "KillWait is 5 s", "KillWait=30", plant=configured("KillWait=5")
    ),
    "no job arrays": Fault(
        "warn", "requeue", "MaxArraySize is 1", "one by one", plant=configured("MaxArraySize=1")
    ),
    "preemption that cancels": Fault(
        "warn",
        "requeue",
        "PreemptMode of partition low is CANCEL",
        "take the partition gpu",
        ("cluster.partition=low",),
        partition("low", "PreemptMode=CANCEL", "PreemptMode=REQUEUE"),
    ),
    "CPU build of torch": Fault(
        "fail",
        "torch",
        "torch 2.9.0+cpu is a build for CPUs",
        "install a CUDA build",
        ("train.device=auto",),
        cpu_build,
    ),
    "batch that cannot be shared": Fault(
        "fail", "workers", "train.batch_size: 33 images", "32 and 36", ("train.batch_size=33",)
    ),
    "option that is the launcher's": Fault(
        "fail", "workers", "cluster.sbatch.output", "remove it", ("cluster.sbatch.output=x",)
    ),
    "silent controller": Fault(
        "fail", "engine", "did not answer", "administrators", plant=silent_controller
    ),
}
