"""A run is started again once, with the nodes it may have, unless it is cancelled meanwhile."""

from __future__ import annotations

import json

import pytest

from configs.schema import Cluster as Asked
from configs.schema import Recipe
from jobs import again, controller, layout, ledger, opening, resume, slurm
from jobs.errors import RequestError
from jobs.place import Place
from jobs.rundir import RunDirectory
from jobs.stop import StopRequest
from tests.jobs.slurm_stand_in import Cluster
from tests.jobs.workplace import ledger_lines


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(again, "PATIENCE_SECONDS", 0.5)
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)


def test_a_run_cancelled_before_the_requeue_is_not_requeued(
    run: RunDirectory, cluster: Cluster
) -> None:
    run.cancelled("7").touch()

    again.start(run, "7", 0, Asked(), [])

    assert cluster.orders() == []


def test_a_run_cancelled_during_the_requeue_is_cancelled_again(
    run: RunDirectory, cluster: Cluster
) -> None:
    cluster.answer("scancel", "")
    mark = f"touch {run.cancelled('7')}\n"
    with (cluster.folder / "scontrol").open("r+") as script:
        lines = script.readlines()
        script.seek(0)
        script.writelines([lines[0], mark, *lines[1:]])

    again.start(run, "7", 0, Asked(), [])

    assert cluster.orders() == ["scontrol requeue 7", "scancel 7"]


@pytest.mark.parametrize(("job", "follow_up"), [("7", False), ("8", True)])
def test_a_cancelled_job_and_one_that_follows_it_open_no_attempt(
    run: RunDirectory, cluster: Cluster, job: str, follow_up: bool
) -> None:
    run.cancelled("7").touch()
    here = Place(0, 0, 1, 1, job, 1, "n", ("n",), f"{job}.1", follow_up)

    with (
        pytest.raises(RequestError, match="job 7 was cancelled; to go on"),
        opening.hold(run, here, Asked(), StopRequest()),
    ):
        pass
    assert len(ledger_lines(run)) == 1


def test_unfit_nodes_are_left_out_together_with_the_recipes_own(
    run: RunDirectory, cluster: Cluster
) -> None:
    own = Asked(sbatch={"exclude": "node[8-9]"})
    assert again.exclusions(run, own) == []
    row = ledger_lines(run)[0] | {"unfit_nodes": ["node2"]}
    run.attempts.write_text(json.dumps(row) + "\n")

    again.start(run, "7", 0, own, ["node2"])

    assert cluster.orders()[-1] == "scontrol update JobId=7 ExcNodeList=node[8-9],node2"
    assert again.exclusions(run, Asked()) == ["node2"]


def test_a_run_resumed_by_hand_leaves_out_the_nodes_known_as_unfit(
    run: RunDirectory, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ledger_lines(run)[0] | {"unfit_nodes": ["node2"]}
    run.attempts.write_text(json.dumps(row) + "\n")
    for file in (run.script, run.engine_files / slurm.TASK):
        file.touch()
    recipe = Recipe()
    wish = resume._Wish(run, recipe, layout.on_slurm(recipe), on_slurm=True)

    resume._submit(wish, [], all_nodes=False)

    [order] = cluster.orders()
    assert order.endswith(f"--exclude=node2 {run.script}")
    assert "node2 (resume --all-nodes takes unfit ones again)" in capsys.readouterr().err

    resume._submit(wish, [], all_nodes=True)

    assert "--exclude" not in cluster.orders()[-1]
    assert again.exclusions(run, Asked()) == []


def test_a_node_that_is_found_unfit_after_it_was_trusted_again_is_left_out(
    run: RunDirectory, cluster: Cluster
) -> None:
    row = ledger_lines(run)[0] | {"unfit_nodes": ["node1", "node2"]}
    run.attempts.write_text(json.dumps(row) + "\n")
    again.trust_nodes(run)
    assert again.exclusions(run, Asked()) == []

    later = row | {"attempt": 2, "unfit_nodes": ["node2"]}
    run.attempts.write_text(json.dumps(row) + "\n" + json.dumps(later) + "\n")

    assert again.exclusions(run, Asked()) == ["node2"]


def test_a_controller_that_does_not_answer_is_asked_again(
    run: RunDirectory, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["Unable to contact slurm controller", "Socket timed out", None])
    monkeypatch.setattr(controller, "requeue", lambda _: next(answers))
    monkeypatch.setattr(controller, "look_at", lambda _: None)

    again.start(run, "7", 0, Asked(), [])

    assert cluster.orders() == []
    assert "job 7 is requeued" in run.launcher_log.read_text()
    assert len(ledger.read(run)) == 1


def test_a_controller_that_never_answers_is_not_asked_for_ever(
    run: RunDirectory, cluster: Cluster
) -> None:
    for program in ("squeue", "scontrol", "sbatch"):
        cluster.answer(program, "Unable to contact slurm controller", 1)

    again.start(run, "7", 0, Asked(), [])

    assert "no job can follow it either" in run.launcher_log.read_text()
