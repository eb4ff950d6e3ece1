"""The cluster itself: which programs it runs, what it leaves on the host, what it refuses."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.jobs.workplace import Workplace, eventually
from tests.slurm.cluster import slurm
from tests.slurm.conftest import RELEASE, devcluster, running_cluster, start_cluster, state_folder

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


def test_after_a_power_cut_the_jobs_are_queued_again(tmp_path: Path) -> None:
    state = Path(state_folder("power-cut"))
    with running_cluster(str(state)) as environment:

        def client(*command: str) -> str:
            done = subprocess.run(
                command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
            )
            return done.stdout.strip()

        def is_saved() -> bool:  # slurmctld writes its state every few seconds
            started = client("squeue", "-h", "-j", job, "-t", "running", "-o", "%S")
            file = state / "slurmctld" / "job_state"
            if not started or not file.exists():
                return False
            return file.stat().st_mtime > float(client("date", "-d", started, "+%s")) + 1

        job = client("sbatch", "--parsable", "--requeue", "-N2", "--wrap", "srun sleep 1000")
        eventually("slurmctld has written down that the job runs", is_saved, 60)

        kill_all(state)
        start_cluster(str(state))

        def is_queued_again() -> bool:  # or, ten seconds later, has begun again
            return "Restarts=1 " in client("scontrol", "show", "job", job)

        eventually("the job is queued again", is_queued_again, 60)


def kill_all(state: Path) -> None:
    """End a cluster's daemons and jobs as a power cut would."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_ours = (
                any(str(state) in str(each.readlink()) for each in (process / "fd").iterdir())
                or f"SLURM_CONF={state}/".encode() in (process / "environ").read_bytes()
            )
            if is_ours and int(process.name) != os.getpid():
                os.kill(int(process.name), signal.SIGKILL)
