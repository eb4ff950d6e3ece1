"""How many workers a recipe means, here and on Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.cluster import Cluster
from configs.schema import Recipe, Train
from jobs import layout
from jobs.errors import RefusedError
from jobs.layout import Layout
from jobs.place import expand_tasks


def recipe(device: str = "auto", **cluster: object) -> Recipe:
    return Recipe(cluster=Cluster(**cluster), train=Train(device=device))


@pytest.mark.parametrize(
    ("asked", "gpus", "device", "expected"),
    [
        ("all", 4, "auto", Layout(1, 4, 4)),
        (2, 4, "auto", Layout(1, 2, 2)),
        (0, 4, "auto", Layout(1, 3, 0)),
        ("all", 0, "auto", Layout(1, 3, 0)),
        (2, 0, "auto", Layout(1, 2, 0)),
        (0, 0, "auto", Layout(1, 3, 0)),
        ("all", 4, "cpu", Layout(1, 3, 0)),
        (8, 4, "cpu", Layout(1, 8, 0)),
    ],
)
def test_this_machine_gives_one_worker_a_gpu_or_cpu_workers(
    asked: object, gpus: int, device: str, expected: Layout
) -> None:
    wanted = recipe(device, gpus_per_node=asked, cpu_workers=3)

    assert expected == layout.on_this_machine(wanted, gpus)


@pytest.mark.parametrize(
    ("wanted", "gpus", "key"),
    [
        (recipe(gpus_per_node=8), 4, "cluster.gpus_per_node"),
        (recipe(nodes=2), 4, "cluster.nodes"),
        (recipe("cuda"), 0, "train.device"),
    ],
)
def test_what_this_machine_cannot_give_is_refused_by_key(
    wanted: Recipe, gpus: int, key: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        layout.on_this_machine(wanted, gpus)

    assert [key] == [problem.key for problem in refused.value.problems]


def test_slurm_is_asked_for_exactly_what_the_recipe_says() -> None:
    assert Layout(2, 4, 4) == layout.on_slurm(recipe(nodes=2, gpus_per_node=4))
    assert Layout(2, 3, 0) == layout.on_slurm(recipe(nodes=2, gpus_per_node=0, cpu_workers=3))
    with pytest.raises(RefusedError, match="all"):
        layout.on_slurm(recipe(gpus_per_node="all"))


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, 3), ("", 0), ("-1", 0), ("0", 1), ("0,2", 2), ("0,-1,1", 1), ("0,1,2,3,4", 3)],
)
def test_gpus_are_counted_as_cuda_would(tmp_path: Path, visible: str | None, expected: int) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}

    assert expected == layout.count_gpus(environ, tmp_path)


def test_slurms_short_form_of_task_counts_is_spelled_out() -> None:
    assert expand_tasks("2(x3),1") == [2, 2, 2, 1]
    assert expand_tasks("4") == [4]
