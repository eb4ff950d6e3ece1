"""A job works with the code of the moment of its submission, whatever becomes of the project."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.rundir import RunDirectory
from tests.jobs.snapshots import commit_all, git
from tests.jobs.workplace import Workplace, worker_reports
from tests.slurm.cluster import LONG, await_restart, await_step, slurm, submit

pytestmark = pytest.mark.slurm


def make_repository(workplace: Workplace) -> None:
    """Two commits: on `main` the stub tells of its train/loop.py, on `other` nothing works."""
    project = workplace.project
    (project / "train" / "loop.py").write_text('WORDS = "committed"\n')
    stub = project / "train" / "__main__.py"
    stub.write_text(
        stub.read_text()
        .replace("import sys\n", "import sys\n\nfrom train.loop import WORDS\n", 1)
        .replace('"code": __file__', '"code": __file__, "words": WORDS', 1)
    )
    commit_all(project)
    git(project, "checkout", "--quiet", "-b", "other")
    for module in [*project.glob("train/*.py"), *project.glob("jobs/*.py")]:
        module.write_text('raise SystemExit("this is another commit")\n')
    git(project, "rm", "--quiet", "-r", "configs")
    git(project, "commit", "--quiet", "--all", "--message", "other")
    git(project, "checkout", "--quiet", "-")


def what_ran(run: RunDirectory, attempt: int) -> list[dict[str, Any]]:
    return [
        {"words": report["words"], "code": report["code"]}
        for report in worker_reports(run, attempt)
    ]


def test_a_queued_and_a_requeued_job_run_what_was_submitted_after_a_checkout_and_an_edit(
    workplace: Workplace,
) -> None:
    make_repository(workplace)
    loop = workplace.project / "train" / "loop.py"
    loop.write_text('WORDS = "edited before"\n')
    run, job = submit(workplace, *LONG, "--set", "cluster.sbatch.begin=now+1hour")
    provenance = json.loads(run.provenance.read_text())
    assert provenance["diff_sha256"]
    expected = {"words": "edited before", "code": str(run.code.resolve() / "train/__main__.py")}

    loop.write_text('WORDS = "edited after"\n')
    git(workplace.project, "checkout", "--quiet", "--force", "other")
    slurm(workplace, "scontrol", "update", f"JobId={job}", "StartTime=now")

    await_step(run, attempt=1)
    assert what_ran(run, attempt=1) == [expected] * 2

    git(workplace.project, "checkout", "--quiet", "-")
    loop.write_text('WORDS = "edited once more"\n')
    slurm(workplace, "scontrol", "requeue", job)

    await_restart(workplace, job)
    await_step(run, attempt=2)
    assert what_ran(run, attempt=2) == [expected] * 2
    assert json.loads(run.provenance.read_text()) == provenance
