"""A bundle's way to a machine without a network, where an ordinary user installs and uses it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jobs.controller import clean_environment

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# Nobody's account, or at least nobody's who owns anything here.
UID = 65534
ALONE = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
SHORT = (
    "data.resolution=64",
    "data.train_images=64",
    "data.test_images=40",
    "train.max_steps=2",
    "train.batch_size=16",
    "logging.every_steps=1",
    "cluster.engine=local",
    "cluster.gpus_per_node=all",
    "cluster.cpu_workers=2",
    "cluster.cpus_per_gpu=1",
    "train.device=cpu",
)


@dataclass(frozen=True)
class Cluster:
    """A folder tree that a user without rights sees: the bundle, read-only, a home, a place."""

    root: Path
    way: tuple[str, ...]
    python: str
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.root / "place" / "slurm-finetune"

    def carry(self, bundle: Path) -> None:
        """Bring a bundle along, onto a share that nobody may write."""
        share = shutil.copytree(bundle, self.root / "share")
        for path in (share, *share.rglob("*")):
            path.chmod(0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444)

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command of the user, in the place where the project is or will be."""
        inside = self.project if self.project.exists() else self.root / "place"
        began = time.monotonic()
        done = subprocess.run(
            [*self.way, *command],
            cwd=inside,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.root / "home"),
                "OMP_NUM_THREADS": "1",
                **variables,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self.seconds[" ".join(command[:3])] = time.monotonic() - began
        return done

    def install(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The bundle's install.sh."""
        script = self.root / "share" / "install.sh"
        return self.run(str(script), *arguments, **{"PYTHON": self.python, **variables})

    def launch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The installed project's `python launch.py ARGUMENTS`."""
        return self.run(".venv/bin/python", "launch.py", *arguments)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A place to carry a bundle to; what runs there has no interface but loopback."""
    # Not below pytest's own folder, which only its user may enter.
    root = Path(tempfile.mkdtemp(prefix="offline-"))
    try:
        root.chmod(0o755)
        way, python = _find_way()
        for name in ("home", "place"):
            (root / name).mkdir()
            if os.geteuid() == 0:
                os.chown(root / name, UID, UID)
        yield Cluster(root, way, python)
    finally:
        shutil.rmtree(root)


def _ways() -> Iterator[tuple[str, ...]]:
    """What makes a command an ordinary user's in a network namespace of its own, the best first."""
    if os.geteuid() == 0:
        ordinary = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
        # setpriv itself still starts what only root may read, so let another program start it.
        yield (*ALONE, *ordinary, "env")
        # Where nobody else can read this Python's packages, root is alone at least.
        yield ALONE
    else:
        yield ("unshare", "--map-root-user", *ALONE[1:])


def _find_way() -> tuple[tuple[str, ...], str]:
    """The first way that is open here, and a Python that can be used on it."""
    packages = sysconfig.get_paths()["purelib"]
    check = f"import ensurepip, os, venv; os.listdir({packages!r} + '/torch')"
    names = (str(Path(sys.executable).resolve()), f"/usr/bin/python{PYTHON}")
    for way in _ways():
        for python in names:
            with contextlib.suppress(FileNotFoundError):
                command = [*way, python, "-c", check]
                if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                    return way, python
    # Containers may forbid namespaces, and other systems have none.
    return pytest.skip("a network namespace needs Linux, and root or user namespaces")


def stage(project: Path, bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python launch.py stage` in a project, for this Python and machine."""
    command = [sys.executable, "launch.py", "stage", "--to", str(bundle), "--python", PYTHON]
    command += ["--platform", f"manylinux_2_28_{platform.machine()}", *arguments]
    environment = clean_environment()
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def settings(*overrides: str) -> list[str]:
    """Each as an option of the command line."""
    return [word for override in overrides for word in ("--set", override)]


def train(cluster: Cluster, *arguments: str) -> tuple[Path, dict[str, Any]]:
    """A short training of two ranks to its end; its run directory and results."""
    done = cluster.launch(*arguments, *settings(*SHORT))
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = (cluster.project / "logs").glob("*/*/results.json")
    return run.parent, json.loads(run.read_text())
