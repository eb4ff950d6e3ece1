"""What a task gives its worker, and how it reads its own place from Slurm."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from configs.cluster import Cluster
from jobs import interfaces, layout, place
from jobs.place import Place
from jobs.rendezvous import Meeting
from jobs.rundir import RunDirectory
from jobs.stop import StopRequest
from jobs.worker import environment as worker_environment

RUN = RunDirectory(Path("/runs/name/stamp"))
DEFAULTS = ("TORCH_FR_", "TORCH_NCCL_", "GLOO_", "GLIBC_")
HERE = Place(5, 1, 8, 4, "12", 0, "node2", ("node1", "node2"), "12.0")


@pytest.fixture(autouse=True)
def interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only two nodes meet over an interface of this machine, wherever the test runs."""
    found = {("10.0.0.1", "node1", "node2"): "eth3"}
    monkeypatch.setattr(interfaces, "towards", lambda addresses: found.get(tuple(addresses)))


def environment(**variables: str) -> dict[str, str]:
    given = worker_environment(variables, RUN, HERE, Meeting("10.0.0.1", 23456, 1), Cluster())
    return {name: value for name, value in given.items() if not name.startswith(DEFAULTS)}


def test_the_worker_gets_torchruns_variables_whatever_was_there_before() -> None:
    given = environment(RANK="0", MASTER_ADDR="old", TORCHELASTIC_USE_AGENT_STORE="True", A="b")

    assert given == {
        "A": "b",
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "23456",
        "PYTHONPATH": "/runs/name/stamp/code",
        "PYTHONFAULTHANDLER": "1",
    }


def test_the_snapshot_comes_before_the_users_own_python_path() -> None:
    assert environment(PYTHONPATH="/mine")["PYTHONPATH"] == "/runs/name/stamp/code:/mine"


@pytest.mark.parametrize(("bound", "expected"), [(True, "1"), (False, None)])
def test_threads_are_set_only_where_slurm_has_bound_the_task_to_its_cores(
    monkeypatch: pytest.MonkeyPatch, bound: bool, expected: str | None
) -> None:
    cores = {0} if bound else set(range(os.cpu_count() or 1))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    monkeypatch.setattr(os, "cpu_count", lambda: max(2, len(cores)) if bound else len(cores))

    assert environment(SLURM_CPUS_PER_TASK="4").get("OMP_NUM_THREADS") == expected


def test_the_place_comes_from_the_step_for_uneven_layouts_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slurm = {
        "SUBMITIT_EXECUTOR": "slurm",
        "SLURM_JOB_ID": "12",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NODEID": "1",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "0",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_TASKS_PER_NODE": "3,1",
        "SLURM_RESTART_COUNT": "2",
        "SLURMD_NODENAME": "node2",
    }
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)

    assert place.from_slurm(os.environ) == Place(
        3, 0, 4, 1, "12", 2, "node2", ("node1", "node2"), "12.2", log_id="12"
    )


def test_the_sites_interface_and_the_recorder_are_defaults_that_a_recipe_replaces() -> None:
    meeting = Meeting("10.0.0.1", 23456, 1)
    mine = {"NCCL_SOCKET_IFNAME": "eth7", "TORCH_FR_BUFFER_SIZE": "0"}

    given = worker_environment(mine, RUN, HERE, meeting, Cluster(interface="ib0"))

    assert given["GLOO_SOCKET_IFNAME"] == "ib0"
    assert (given["NCCL_SOCKET_IFNAME"], given["TORCH_FR_BUFFER_SIZE"]) == ("eth7", "0")
    assert given["TORCH_FR_DUMP_TEMP_FILE"] == "/runs/name/stamp/attempt-01/flight-recorder-"


@pytest.mark.parametrize("gpus", [0, 4])
def test_only_a_worker_on_a_cpu_keeps_the_memory_that_it_has_freed(
    monkeypatch: pytest.MonkeyPatch, gpus: int
) -> None:
    monkeypatch.setattr(layout, "count_gpus", lambda _: gpus)

    given = worker_environment({}, RUN, HERE, Meeting("10.0.0.1", 23456, 1), Cluster())

    assert ("GLIBC_TUNABLES" in given) == (gpus == 0)


@pytest.mark.parametrize(
    ("nodes", "variables", "expected"),
    [
        (("node1", "node2"), {}, "eth3"),
        (("node1", "node2"), {"GLOO_SOCKET_IFNAME": "eth7"}, "eth7"),
        (("node1",), {}, None),
    ],
)
def test_gloo_takes_the_interface_that_reaches_the_other_nodes(
    nodes: tuple[str, ...], variables: dict[str, str], expected: str | None
) -> None:
    here, meeting = replace(HERE, nodes=nodes), Meeting("10.0.0.1", 23456, 1)

    given = worker_environment(variables, RUN, here, meeting, Cluster())

    assert given.get("GLOO_SOCKET_IFNAME") == expected


def test_a_forked_child_does_not_ask_its_parent_to_stop() -> None:
    stop = StopRequest()
    stop._pid += 1

    stop.request(signal.SIGTERM)

    assert stop.signal is None
