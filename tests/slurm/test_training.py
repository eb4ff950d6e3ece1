"""The whole job with the real worker: launch.py, submitit, Slurm, DDP over two nodes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.jobs.workplace import Workplace, ledger_lines
from tests.slurm.cluster import await_end, submit

pytestmark = pytest.mark.slurm


@pytest.fixture
def real_workplace(workplace: Workplace) -> Workplace:
    """The project with its own worker in place of the stub."""
    shutil.rmtree(workplace.project / "train")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "train", workplace.project / "train", ignore=ignored)
    return workplace


@pytest.mark.slow
def test_two_nodes_of_two_workers_train_to_a_result(
    real_workplace: Workplace, digits_root: Path
) -> None:
    settings = [f"data.root={digits_root}", "data.md5=none", "data.resolution=32"]
    settings += ["data.train_images=64", "data.test_images=32", "train.max_steps=2"]
    settings += ["logging.every_steps=1"]
    value = "0123-never-to-be-written"  # no file of a run has anything of the environment
    shell = Workplace(real_workplace.project, {**real_workplace.environment, "TOKEN": value})
    run, job = submit(shell, *(word for text in settings for word in ("--set", text)))

    assert await_end(shell, job) == "COMPLETED"
    results = json.loads(run.results.read_text())
    assert (results["world_size"], results["steps"], results["attempts"]) == (4, 2, 1)
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    last = [line for line in lines if line["mode"] == "val"][-1]
    assert last["accuracy_top-1"] == results["accuracy_top-1"]
    [attempt] = ledger_lines(run)
    assert (attempt["reason"], attempt["last_step"]) == ("finished", 2)
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(list(run.path.glob("attempt-01/rank-*.log"))) == 4
    assert [path for path in files if value.encode() in path.read_bytes()] == []
