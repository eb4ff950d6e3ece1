"""The times in a report against those in Slurm's own accounting."""

from __future__ import annotations

import json

import pytest

from tests.jobs.workplace import Workplace, eventually, ledger_lines
from tests.slurm.cluster import await_end, await_step, slurm

pytestmark = pytest.mark.slurm

ONE_AT_A_TIME = (
    "--config", "stub.yaml", "--engine", "slurm",
    "--set", "cluster.nodes=1", "--set", "cluster.gpus_per_node=2",
    "--set", "cluster.time_limit=00:10:00", "--set", "cluster.env.STUB_STEPS='100'",
    "--sweep", "run.seed=1,2", "--set", "cluster.array_parallelism=1",
)  # fmt: skip
# An attempt is opened when Python has started on the node.
OPENING_SECONDS = 15


def recorded_seconds(workplace: Workplace, job: str) -> tuple[int, int]:
    """How long all starts of a job waited and ran, by Slurm's accounting."""
    environment = {**workplace.environment, "SLURM_TIME_FORMAT": "%s"}

    def complete() -> list[tuple[int, ...]]:
        answer = slurm(
            Workplace(workplace.project, environment),
            "sacct", "--noheader", "--parsable2", "--allocations", "--duplicates",
            "--format=Submit,Start,End", f"--jobs={job}",
        )  # fmt: skip
        # The state of a job that has ended may be there before its times.
        cells = [line.split("|") for line in answer.splitlines()]
        known = all(cell.isdigit() for row in cells for cell in row)
        return [tuple(map(int, row)) for row in cells] if known else []

    rows = eventually(f"job {job} has its times", complete)
    return sum(s - queued for queued, s, _ in rows), sum(end - s for _, s, end in rows)


def test_queue_wall_and_gpu_time_are_slurms_own(workplace: Workplace) -> None:
    """Of two elements of which only one may run, the first one requeued on the way."""
    done = workplace.launch(*ONE_AT_A_TIME)
    assert done.returncode == 0, done.stderr
    first, second = workplace.runs
    await_step(first, 1)
    job = ledger_lines(first)[0]["job_id"]
    slurm(workplace, "scancel", "--signal=USR2", job)
    states = [await_end(workplace, each) for each in (job, job.replace("_0", "_1"))]
    assert states == ["COMPLETED", "COMPLETED"]

    report = json.loads(workplace.launch("report", first.sweep.name, "--format", "json").stdout)
    assert [told["attempts"] for told in report["runs"]] == [2, 1]
    for told, run in zip(report["runs"], (first, second), strict=True):
        waited, ran = recorded_seconds(workplace, ledger_lines(run)[0]["job_id"])
        room = OPENING_SECONDS * told["attempts"]
        assert waited - 2 <= told["queue_seconds"] <= waited + room
        assert ran - room <= told["wall_seconds"] <= ran + 2
        assert told["gpu_seconds"] == 2 * told["wall_seconds"]
    [group] = report["groups"]
    assert (group["finished"], group["seeds"], group["code"]) == (2, [1, 2], "same")
    assert group["accuracy_top-1"] == {"n": 2, "mean": 90.5, "sd": 0.0}
