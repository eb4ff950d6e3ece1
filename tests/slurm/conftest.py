"""The real cluster of slurm/devcluster.sh, and a project with a stub worker that submits to it.

TEST_SLURM_RELEASE=trixie runs the tests with that Debian release's Slurm, not the host's. Each
process of pytest-xdist has a cluster of its own, for the tests count its jobs and end its daemons.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.controller import clean_environment
from jobs.status import newest_job_id
from tests.conftest import PROJECT
from tests.jobs.workplace import Workplace, make_workplace

DEVCLUSTER = PROJECT / "slurm" / "devcluster.sh"
RELEASE = os.environ.get("TEST_SLURM_RELEASE")
FOLDER = os.environ.get("DEVCLUSTER_STATE", "/var/lib/slurm-devcluster")


def state_folder(name: str = "") -> str:
    """The folder of a cluster of this process alone."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    return "-".join(filter(None, [FOLDER, name, RELEASE, worker]))


STATE = state_folder()


def devcluster(
    *arguments: str, check: bool = False, state: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`slurm/devcluster.sh ARGUMENTS` for the cluster in the folder `state`."""
    return subprocess.run(
        [str(DEVCLUSTER), *arguments],
        env=os.environ | {"DEVCLUSTER_STATE": state or STATE},
        capture_output=True,
        text=True,
        check=check,
    )


def start_cluster(state: str | None = None) -> None:
    """Start the cluster, or what has died of it."""
    release = ["--release", RELEASE] if RELEASE else []
    started = devcluster("up", "--install", *release, state=state)
    assert started.returncode == 0, started.stderr


@contextlib.contextmanager
def running_cluster(state: str | None = None) -> Iterator[dict[str, str]]:
    """An environment whose Slurm is the cluster; one that was up before stays up."""
    was_up = devcluster("status", state=state).returncode == 0
    if not was_up:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            reason = "a Slurm cluster needs root on a Debian-like system (slurm/devcluster.sh)"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            # Slurm's daemons start jobs as any user, and not everybody has a Debian.
            pytest.skip(reason)
        devcluster("down", check=True, state=state)  # what a killed run of the tests has left
        start_cluster(state)
    exports = shlex.split(devcluster("env", check=True, state=state).stdout, comments=True)
    settings = dict(word.split("=", 1) for word in exports if "=" in word)
    yield clean_environment() | settings
    if not was_up:
        devcluster("down", check=True, state=state)


@pytest.fixture(scope="session")
def cluster_environment() -> Iterator[dict[str, str]]:
    with running_cluster() as environment:
        yield environment


@pytest.fixture
def workplace(tmp_path: Path, cluster_environment: dict[str, str]) -> Iterator[Workplace]:
    """A fresh project with a stub worker; whatever it queued is ended with the test."""
    workplace = make_workplace(tmp_path / "my project", cluster_environment)
    # As on many sites: a blank in a path, and the runs behind a link to bigger storage.
    workplace.logs.rename(tmp_path / "storage")
    workplace.logs.symlink_to(tmp_path / "storage")
    yield workplace
    jobs = [job for run in workplace.runs if (job := newest_job_id(run))]
    if jobs:
        subprocess.run(["scancel", *jobs], env=cluster_environment, check=False)
