"""The start-up check: a bad node is named, a good one is not, and nobody waits for long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.schema import Recipe, Train
from train import __main__ as worker_main
from train import health
from train.distributed import Ranks, choose_device
from train.errors import RequestError, UnfitNodeError
from train.health import Facts, judge

FIT = Facts(
    rank=0,
    node="a",
    gpu=None,
    cpus=4,
    wanted_cpus=4,
    clock=1000.0,
    trouble=None,
    folder=None,
    sum_is_right=True,
)


def two_nodes(**fault: Any) -> list[Facts]:
    """Ranks 0 and 1 on node a, 2 and 3 on node b with a GPU each; rank 3 has the fault."""
    ranks = [replace(FIT, rank=rank, node="aabb"[rank], gpu=f"GPU-{rank}") for rank in range(4)]
    return [*ranks[:3], replace(ranks[3], **fault)]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"gpu": None}, "has no GPU that answers, while others have one"),
        ({"cpus": 1}, "may use 1 of 4 CPUs"),
        ({"folder": "cannot write to /runs/x (Read-only file system)"}, "cannot write to /runs/x"),
        ({"sum_is_right": False}, "got a wrong sum from an all-reduce"),
        ({"gpu": None, "trouble": "has a GPU that fails (ECC)"}, "has a GPU that fails (ECC)"),
    ],
)
def test_rank_with_a_fault_is_the_only_one_named(fault: dict[str, Any], words: str) -> None:
    faults, warnings = judge(two_nodes(**fault))

    assert list(faults) == [3]
    assert words in faults[3]
    assert warnings == []


def test_two_ranks_on_one_gpu_are_both_named() -> None:
    faults, _ = judge(two_nodes(gpu="GPU-2"))

    assert {rank: text.split()[0] for rank, text in faults.items()} == {2: "shares", 3: "shares"}


def test_too_few_cpus_everywhere_are_a_warning_for_they_are_not_the_nodes_fault() -> None:
    faults, warnings = judge([replace(fact, cpus=1) for fact in two_nodes()])

    assert faults == {}
    assert warnings == ["every worker may use 1 of 4 CPUs: training will be slow"]


def test_clocks_that_differ_are_a_warning_that_names_the_node() -> None:
    faults, warnings = judge(two_nodes(clock=1060.0))

    assert faults == {}
    assert "clocks differ by 60 s (b is ahead)" in warnings[0]


def check(ranks: Ranks, folders: list[str], nodes: list[str]) -> tuple[str, Any]:
    health.platform.node = lambda: nodes[ranks.rank]
    try:
        return "judged", health.check_nodes(Path(folders[ranks.rank]), Recipe(), ranks)
    except (RequestError, UnfitNodeError) as error:
        return type(error).__name__, str(error)


def test_fit_nodes_pass_and_leave_no_file(
    tmp_path: Path, on_ranks: Callable[..., list[Any]]
) -> None:
    outcomes = on_ranks(2, check, [str(tmp_path)] * 2, ["a", "b"])

    assert {outcome[1][0] for outcome in outcomes} == {True}
    assert list(tmp_path.iterdir()) == []


def test_node_that_does_not_see_the_run_directory_is_unfit_and_the_other_is_told(
    tmp_path: Path, on_ranks: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "shared", tmp_path / "its own"]
    for folder in folders:
        folder.mkdir()
    good, bad = on_ranks(2, check, [str(folder) for folder in folders], ["a", "b"])

    assert good[1][0] is False
    assert good[1][1][-1].startswith("b is unfit: rank 1 does not see in ")
    assert bad[0] == "UnfitNodeError"
    assert bad[1].endswith("is it on shared storage?")


def test_fault_of_every_node_is_the_requests_fault(
    tmp_path: Path, on_ranks: Callable[..., list[Any]]
) -> None:
    outcomes = on_ranks(2, check, [str(tmp_path / "missing")] * 2, ["a", "b"])

    assert {outcome[0] for outcome in outcomes} == {"RequestError"}
    assert "no node is fit for this run: rank 0 on a cannot write to" in outcomes[1][1]


def lonely(trouble: str | None, device: str) -> Ranks:
    return Ranks(0, 0, 1, 1, torch.device(device), trouble)


def test_gpu_that_fails_makes_the_only_node_unfit_for_another_node_may_do(tmp_path: Path) -> None:
    with pytest.raises(UnfitNodeError, match="is unfit: rank 0 has a GPU that fails"):
        health.check_nodes(tmp_path, Recipe(), lonely("has a GPU that fails (ECC)", "cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_missing_gpu_is_a_fault_if_the_recipe_insists_and_a_warning_if_not(tmp_path: Path) -> None:
    device, trouble = choose_device(Train(device="cuda"), 0)
    assert device.type == "cpu"
    assert str(trouble).startswith("has no GPU that answers, but train.device is cuda (torch ")

    assert choose_device(Train(device="auto"), 0) == (torch.device("cpu"), None)
    is_fit, warnings = health.check_nodes(tmp_path, Recipe(), lonely(None, "cpu"))
    assert is_fit
    assert warnings[0].startswith("cluster.gpus_per_node is 1, but no GPU answers on any node")


def test_full_disk_is_no_fault_of_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    assert health.check_nodes(tmp_path, Recipe(), lonely(None, "cpu"))[0]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(True, 0), (False, 75), (RequestError("x"), 2), (UnfitNodeError("x"), 76), (OSError("x"), 1)],
)
def test_exit_code_says_how_the_worker_ended(
    monkeypatch: pytest.MonkeyPatch, outcome: bool | Exception, code: int
) -> None:
    def run(*_: Any) -> bool:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("train.worker.run", run)
    monkeypatch.setattr(worker_main.StopFlag, "install", lambda: None)
    monkeypatch.setattr("sys.argv", ["train", "--run", "somewhere"])
    assert worker_main.main() == code
