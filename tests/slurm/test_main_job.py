"""The main job: launch.py, submitit, a real Slurm, two nodes of two workers, DDP.

On real CIFAR-10 with real pretrained weights where they are at hand, else on digits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs import dump_recipe, read_resolved
from jobs.rundir import RunDirectory
from tests import warm
from tests.conftest import PROJECT
from tests.jobs.workplace import Workplace, ledger_lines
from tests.slurm.cluster import await_end, slurm
from tests.train.runs import changed

pytestmark = pytest.mark.slurm

STEPS, TEST_IMAGES = 24, 299
SETTINGS = {
    "cluster.nodes": 2,
    "cluster.gpus_per_node": 2,
    "cluster.cpus_per_gpu": 2,
    "data.md5": "none",
    "data.test_images": TEST_IMAGES,
    "data.resolution": 48,
    "optimizer.lr": 0.006,
    "schedule.kind": "cosine",
    "schedule.warmup_steps": 4,
    "train.max_steps": STEPS,
    "logging.every_steps": 10,
}
FOREIGN = "0123-never-to-be-written"  # a value in the environment of who submits


@pytest.fixture
def finetuned(
    cluster_environment: dict[str, str],
    digits_root: Path,
    shared_folder: Callable[[str], AbstractContextManager[Path]],
) -> RunDirectory:
    """A finished run of `finetune.yaml`, small."""
    with shared_folder("main job") as folder:
        if not list(folder.glob("*/*/results.json")):
            files = {
                "data.root": os.environ.get("TEST_CIFAR10_ROOT", digits_root),
                "model.weights": os.environ.get("TEST_WEIGHTS", "null"),
            }
            finetune(cluster_environment, SETTINGS | files | {"run.root": folder})
        [results] = folder.glob("*/*/results.json")
    return RunDirectory(results.parent)


def finetune(environment: dict[str, str], settings: dict[str, Any]) -> None:
    """Submit `finetune.yaml`, and see it to its end in accounting."""
    project = Workplace(PROJECT, environment | {"TOKEN": FOREIGN})
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done = project.launch("--config", "finetune.yaml", "--engine", "slurm", *words)
    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[2].rstrip(":")

    assert await_end(project, job, seconds=600) == "COMPLETED"
    table = slurm(project, "sacct", "-X", "-n", "-P", "--format=NNodes,ExitCode", "-j", job)
    assert table.strip() == "2|0:0"


def lines(run: RunDirectory, mode: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [row for row in rows if row["mode"] == mode]


@pytest.mark.slow
def test_two_nodes_of_two_workers_train_to_a_result_and_all_records_agree(
    finetuned: RunDirectory,
) -> None:
    results = json.loads(finetuned.results.read_text())
    assert (results["steps"], results["world_size"], results["attempts"]) == (STEPS, 4, 1)
    [val] = lines(finetuned, "val")
    assert val["accuracy_top-1"] == results["accuracy_top-1"]
    assert val["accuracy_top-5"] == results["accuracy_top-5"]
    confusion = np.array(results["confusion_matrix"])
    assert confusion.sum() == TEST_IMAGES
    assert 100 * confusion.trace() / TEST_IMAGES == pytest.approx(results["accuracy_top-1"])

    reader = EventAccumulator(str(finetuned.path / "tensorboard"))
    reader.Reload()
    for mode, key in (("train", "loss"), ("train", "lr"), ("val", "accuracy_top-1")):
        written = [(row["step"], np.float32(row[key])) for row in lines(finetuned, mode)]
        shown = [(event.step, event.value) for event in reader.Scalars(f"{mode}/{key}")]
        assert shown == written

    [attempt] = ledger_lines(finetuned)
    assert (attempt["reason"], attempt["last_step"]) == ("finished", STEPS)
    assert len(list(finetuned.path.glob("attempt-01/rank-*.log"))) == 4
    files = [path for path in finetuned.path.rglob("*") if path.is_file()]
    assert [path for path in files if FOREIGN.encode() in path.read_bytes()] == []


@pytest.mark.real
@pytest.mark.usefixtures("real_cifar10", "real_weights")
def test_pretrained_weights_beat_random_ones_by_twenty_points(
    finetuned: RunDirectory, tmp_path: Path
) -> None:
    """Random ones by the same recipe on one worker, which takes a third of the work of four."""
    recipe = changed(read_resolved(finetuned.config), "model", weights=None)
    (tmp_path / "config.yaml").write_text(dump_recipe(recipe))
    done = warm.run("train", "--run", tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr

    pretrained, random = (
        json.loads((path / "results.json").read_text())["accuracy_top-1"]
        for path in (finetuned.path, tmp_path)
    )
    assert pretrained >= random + 20
    print(f"top-1 after {STEPS} steps: {pretrained} pretrained, {random} random")
