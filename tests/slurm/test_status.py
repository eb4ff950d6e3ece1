"""What `status` and `watch` say of a job while it waits, runs, is preempted, and ends."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.rundir import RunDirectory
from tests.jobs.workplace import Workplace, eventually
from tests.slurm.cluster import (
    await_end,
    await_ledger_end,
    await_status,
    await_step,
    slurm,
    submit,
)

pytestmark = pytest.mark.slurm

STEPS = 60
OTHER = ("sbatch", "--parsable", "--partition=gpu", "--exclusive", "--output=/dev/null")


def row_of(workplace: Workplace, run: RunDirectory) -> dict[str, str]:
    """What each column says of a run."""
    header, line = workplace.launch("status", run.label).stdout.splitlines()
    names = header.split()
    return dict(zip(names, line.split(maxsplit=len(names) - 1), strict=False))


@contextlib.contextmanager
def watching(
    workplace: Workplace, run: RunDirectory, told: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """`launch.py watch` of a run, printing into a file."""
    with told.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "launch.py", "watch", run.label],
            cwd=workplace.project,
            env=dict(workplace.environment),
            stdout=file,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_a_preempted_job_is_followed_from_the_queue_to_its_end(
    workplace: Workplace, tmp_path: Path
) -> None:
    first = slurm(workplace, *OTHER, "--nodes=3", "--time=2", "--wrap=sleep 100").strip()
    low = ("--set", "cluster.partition=low", "--set", f"cluster.env.STUB_STEPS='{STEPS}'")
    run, job = submit(workplace, *low)
    told = tmp_path / "told"
    with watching(workplace, run, told) as watch:
        waits(workplace, run, job, told)
        slurm(workplace, "scancel", first)
        is_preempted(workplace, run)
        ends(workplace, run, job)
        assert watch.wait(timeout=60) == 0

    lines = told.read_text().splitlines()
    # A state that lasts less than the ten seconds between two questions may be missed.
    states = [line.partition(f"{run.label}: ")[2].split(",")[0].split()[0] for line in lines]
    assert states[0] == "queued"
    assert "running" in states
    assert states[-1] == "finished"


def waits(workplace: Workplace, run: RunDirectory, job: str, told: Path) -> None:
    waiting = row_of(workplace, run)
    assert (waiting["STATE"], waiting["STEP"], waiting["LEFT"]) == ("queued", "-", "-")
    assert waiting["NOTE"].startswith(f"job {job}: waits ")
    eventually("watch has said so", lambda: ": queued, job " in told.read_text())


def is_preempted(workplace: Workplace, run: RunDirectory) -> None:
    await_step(run, 1)
    running = row_of(workplace, run)
    assert (running["STATE"], running["ATTEMPT"]) == ("running", "1")
    assert running["STEP"].endswith(f"/{STEPS}")
    assert running["LEFT"] in ("9m", "10m")
    nodes = "--nodelist=" + ",".join(json.loads(run.attempts.read_text())["nodes"])
    other = slurm(workplace, *OTHER, nodes, "--nodes=2", "--time=2", "--wrap=sleep 3").strip()

    line = await_ledger_end(run, 1)
    assert line["reason"] == "preemption"
    await_status(workplace, run, "queued")
    assert row_of(workplace, run)["STEP"] == f"{line['last_step']}/{STEPS}"
    assert await_end(workplace, other) == "COMPLETED"


def ends(workplace: Workplace, run: RunDirectory, job: str) -> None:
    # Not which state the job ends in: Slurm 24.11 requeues it once more when the grace is over that
    # it gave with its warning, though the job has long gone on, and the run finished by then.
    await_end(workplace, job)
    await_status(workplace, run, "finished")
    first, second = await_ledger_end(run, 1), await_ledger_end(run, 2)
    assert second["first_step"] == first["last_step"] + 1
    finished = row_of(workplace, run)
    assert (finished["ATTEMPT"], finished["DONE"], finished["BEST"]) == ("2", "100%", "90.50")


def test_waiting_elements_of_an_array_are_told_apart(workplace: Workplace) -> None:
    sweep = workplace.logs.resolve() / "name" / "20260102-000000-abcd"
    names = [f"{index}-seed={index}" for index in range(3)]
    elements = [{"folder": name, "changes": {"run.seed": i}} for i, name in enumerate(names)]
    for name in names:
        folder = sweep / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
        (folder / "job.sbatch").touch()
    (sweep / "sweep.json").write_text(json.dumps({"elements": elements}))
    (sweep / "code").mkdir()
    command = ("sbatch", "--parsable", "--hold", f"--chdir={sweep / 'code'}", "--array=0-2%1")
    job = slurm(workplace, *command, "--output=/dev/null", "--time=1", "--wrap=true").strip()
    slurm(workplace, "scancel", f"{job}_1")

    lines = workplace.launch("status", "name").stdout.splitlines()[1:]

    slurm(workplace, "scancel", job)
    assert [line.split()[1] for line in lines] == ["queued", "queued", "lost", "queued"]
    held = "held; release it with scontrol release"
    assert [line.split("job ")[-1] for line in (lines[1], lines[3])] == [
        f"{job}_0: {held}",
        f"{job}_2: {held}",
    ]
