"""The main job: real CIFAR-10, real pretrained weights, a real Slurm, two nodes of two workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jobs.rundir import RunDirectory
from tests.conftest import PROJECT
from tests.jobs.workplace import Workplace
from tests.slurm.cluster import await_end, slurm

pytestmark = [pytest.mark.slurm, pytest.mark.real]

STEPS = 30
SETTINGS = {
    "cluster.nodes": 2,
    "cluster.gpus_per_node": 2,
    "cluster.cpus_per_gpu": 2,
    "data.md5": "none",
    "data.test_images": 500,
    "data.resolution": 64,
    "train.max_steps": STEPS,
    "logging.every_steps": 10,
}


def finetune(environment: dict[str, str], root: Path, **settings: Any) -> RunDirectory:
    """Submit `finetune.yaml`, small, and see it to its end in accounting."""
    project = Workplace(PROJECT, environment)
    values = SETTINGS | {"run.root": root} | settings
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    done = project.launch("--config", "finetune.yaml", "--engine", "slurm", *words)
    assert done.returncode == 0, done.stderr
    [directory] = [path.parent for path in root.glob("*/*/config.yaml")]
    job = done.stdout.split()[2].rstrip(":")

    assert await_end(project, job, seconds=600) == "COMPLETED"
    table = slurm(project, "sacct", "-X", "-n", "-P", "--format=NNodes,ExitCode", "-j", job)
    assert table.strip() == "2|0:0"
    return RunDirectory(directory)


def lines(run: RunDirectory, mode: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [row for row in rows if row["mode"] == mode]


@pytest.mark.slow
def test_pretrained_weights_beat_random_ones_by_twenty_points_and_all_records_agree(
    cluster_environment: dict[str, str], real_cifar10: Path, real_weights: Path, tmp_path: Path
) -> None:
    data = {"data.root": real_cifar10}
    pretrained = finetune(
        cluster_environment, tmp_path / "pretrained", **data, **{"model.weights": real_weights}
    )
    random = finetune(cluster_environment, tmp_path / "random", **data, **{"model.weights": "null"})

    results = json.loads(pretrained.results.read_text())
    assert (results["steps"], results["world_size"], results["attempts"]) == (STEPS, 4, 1)
    [val] = lines(pretrained, "val")
    assert val["accuracy_top-1"] == results["accuracy_top-1"]
    assert val["accuracy_top-5"] == results["accuracy_top-5"]
    confusion = np.array(results["confusion_matrix"])
    assert confusion.sum() == 500
    assert 100 * confusion.trace() / 500 == pytest.approx(results["accuracy_top-1"])

    reader = EventAccumulator(str(pretrained.path / "tensorboard"))
    reader.Reload()
    for mode, key in (("train", "loss"), ("train", "lr"), ("val", "accuracy_top-1")):
        written = [(row["step"], np.float32(row[key])) for row in lines(pretrained, mode)]
        shown = [(event.step, event.value) for event in reader.Scalars(f"{mode}/{key}")]
        assert shown == written

    chance = json.loads(random.results.read_text())["accuracy_top-1"]
    assert results["accuracy_top-1"] >= chance + 20
    print(f"top-1 after {STEPS} steps: {results['accuracy_top-1']} pretrained, {chance} random")
