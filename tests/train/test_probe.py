"""The look at the nodes: every rank in the table, what is wrong named, nothing else written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.schema import Recipe
from jobs import storage
from train import probe
from train.distributed import Ranks
from train.model import build_model


def look(ranks: Ranks, folder: str, data_root: str) -> None:
    recipe = Recipe.model_validate({"data": {"root": data_root}})
    probe.probe(Path(folder), recipe, ranks)


def test_every_rank_is_in_the_table_with_what_was_measured(
    tmp_path: Path, on_ranks: Callable[..., list[Any]]
) -> None:
    on_ranks(2, look, str(tmp_path), str(tmp_path))

    [file] = tmp_path.iterdir()
    report = json.loads(file.read_text())
    assert [row["rank"] for row in report["rows"]] == [0, 1]
    assert all(row["matrix_ms"] > 0 and row["all_reduce_gb_s"] > 0 for row in report["rows"])
    assert report["faults"] == {}


def test_a_node_that_does_not_see_the_data_is_named(
    tmp_path: Path, on_ranks: Callable[..., list[Any]]
) -> None:
    on_ranks(2, look, str(tmp_path), str(tmp_path / "elsewhere"))

    report = json.loads((tmp_path / probe.REPORT).read_text())
    assert report["faults"]["1"] == f"does not see {tmp_path}/elsewhere"


def test_a_wrong_product_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Ranks(0, 0, 1, 1, torch.device("cpu"))
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.full((4, 4), float("nan")))

    is_right, row = probe.measure(tmp_path, alone, "node1")

    assert (is_right, row.all_reduce_gb_s) == (False, None)


def test_a_checkpoint_is_as_big_as_doctor_reckons() -> None:
    recipe = Recipe.model_validate({"model": {"num_classes": 1000}})
    model = build_model(recipe.model, seed=0)
    numbers = sum(each.numel() for each in model.state_dict().values())

    assert storage.checkpoint_bytes(recipe) == pytest.approx(2 * 4 * numbers, rel=0.01)
