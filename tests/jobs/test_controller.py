"""Slurm's answers that are late, missing, or about somebody else's job."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.schema import Recipe, Run
from jobs import controller, layout, trial
from jobs.errors import WorkError
from tests.jobs.slurm_stand_in import Cluster

SILENT = "allocation failure: Unable to contact slurm controller (connect failure)"


@pytest.mark.parametrize(
    ("words", "key", "told"),
    [
        (SILENT, "cluster.engine", "does not say whether it takes this job"),
        ("sbatch: error: no such account", "cluster", "refuses this job"),
    ],
)
def test_a_silent_controller_is_no_refusal_and_no_keys_fault(
    cluster: Cluster, words: str, key: str, told: str
) -> None:
    cluster.answer("sbatch", words, 1, to=2)
    recipe = Recipe(run=Run(name="stub"))

    [finding] = trial.check_script(recipe, layout.on_slurm(recipe), [])

    assert (finding.level, finding.key) == ("fail", key)
    assert told in finding.text
    assert words in finding.text
    # No key is tried for a cause where there was no answer.
    assert (len(cluster.orders()) == 1) == (words == SILENT)


def test_a_job_whose_id_slurm_is_slow_to_tell_is_not_given_up(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "QUERY_SECONDS", 0.2)
    cluster.answer("sbatch", "8", seconds=1)

    assert controller.submit(tmp_path / "job.sbatch") == "8"
    assert controller.follow("7", tmp_path / "job.sbatch", [])[0] == "8"


@pytest.mark.parametrize(("folder", "found"), [("run", True), ("another run", False)])
def test_a_job_that_is_queued_though_sbatch_had_no_answer_is_found(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, found: bool
) -> None:
    monkeypatch.setattr(controller, "LOOK_SECONDS", 0.0)
    code = tmp_path / folder / "code"
    cluster.answer("sbatch", "sbatch: error: Socket timed out on send/recv operation", 1, to=2)
    line = "|PENDING|N/A|N/A|None|"
    cluster.answer("squeue", f"7|COMPLETED|N/A|N/A|None|{code}\n8_0{line}{code}\n9{line}/else")

    def submit() -> str:
        return controller.submit(tmp_path / "run" / "job.sbatch")

    if found:
        assert submit() == "8"
    else:
        with pytest.raises(WorkError, match="Socket timed out"):
            submit()


def test_a_job_in_a_folder_whose_name_is_no_utf8_hides_no_other(cluster: Cluster) -> None:
    line = "5|RUNNING|N/A|N/A|None|/home/donn\\351es\n7|PENDING|N/A|N/A|None|/mine/code"
    (cluster.folder / "squeue").write_text(f"#!/bin/sh\nprintf '{line}'\n")

    assert [job.work_dir for job in controller.queued_jobs(["me"])] == [
        "/home/donn\udce9es", "/mine/code",
    ]  # fmt: skip
