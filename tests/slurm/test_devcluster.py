"""The cluster itself: which programs it runs, what it leaves on the host, what it refuses."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.jobs.workplace import Workplace
from tests.slurm.cluster import slurm
from tests.slurm.conftest import RELEASE, devcluster

pytestmark = pytest.mark.slurm


def test_clients_daemons_and_jobs_are_of_one_release(workplace: Workplace) -> None:
    client = slurm(workplace, "sinfo", "--version").split()[-1]
    config = slurm(workplace, "scontrol", "show", "config")
    in_a_job = slurm(workplace, "srun", "sbatch", "--version").split()[-1]

    assert re.findall(r"SLURM_VERSION += (\S+)", config) == [client]
    assert in_a_job == client
    assert RELEASE != "trixie" or client.startswith("24.11.")


def test_clients_keep_the_folder_the_input_and_the_exit_code(workplace: Workplace) -> None:
    done = subprocess.run(
        ["srun", "--quiet", "sh"],
        input="pwd\nexit 7\n",
        cwd=workplace.project,
        env=dict(workplace.environment),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (7, f"{workplace.project}\n")


def test_the_host_sees_no_mount_of_the_cluster(cluster_environment: dict[str, str]) -> None:
    state = Path(cluster_environment["SLURM_CONF"]).parent.parent

    mounts = Path("/proc/self/mountinfo").read_text().splitlines()

    assert [line for line in mounts if str(state) in line or "slurm-devcluster" in line] == []


@pytest.mark.parametrize("arguments", [["up", "--release"], ["up", "--release", "none-such"]])
def test_a_release_that_is_not_known_is_a_wrong_request(arguments: list[str]) -> None:
    assert devcluster(*arguments).returncode == 2
