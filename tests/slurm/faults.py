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
from tests.slurm.conftest import state_folder

STATE = Path(state_folder("faults"))
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
    site.weights.write_bytes(b"PK\x03\x04another checkpoint")
    yield


@contextlib.contextmanager
def open_to_all(site: Site) -> Iterator[None]:
    folder = (site.project / "logs").resolve()
    folder.chmod(0o777)
    yield
    folder.chmod(0o755)


def disk(folder: str, options: str) -> Plant:
    """A small file system in memory over a folder of the project."""

    @contextlib.contextmanager
    def plant(site: Site) -> Iterator[dict[str, str]]:
        where = site.project / folder
        where.mkdir(exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
        if subprocess.run(mount, check=False).returncode:
            # A container's root may lack it, and nothing else is as full as a full disk.
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
