"""What a file says of its model, whatever objects it holds in the places of texts and numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from train import facts
from train.containers import Checkpoint

OURS: dict[str, Any] = {"model": {}, "optimizer": {}, "step": 1, "ranks": {}}
# Several values have no truth; the others are no list of names.
STRANGE = (torch.ones(2), {"a": 1}, "cat", 3, [])


def said(content: dict[str, Any], path: Path = Path("/weights.pth")) -> dict[str, Any]:
    return facts.in_file(Checkpoint(content, {}, "zip", "0" * 64, 1), path)


@pytest.mark.parametrize("value", STRANGE)
def test_classes_that_are_no_list_are_not_said(value: Any) -> None:
    assert said({"meta": {"CLASSES": value}}) == {}
    assert said({"meta": {"dataset_meta": {"classes": value}}}) == {}
    assert said({"meta": {"dataset_meta": value}}) == {}
    assert said(OURS | {"classes": value}) == {}


@pytest.mark.parametrize("value", STRANGE)
def test_classes_of_the_older_generation_are_taken_where_the_newer_has_none(value: Any) -> None:
    meta = {"dataset_meta": {"classes": value}, "CLASSES": ("cat", "dog")}

    assert said({"meta": meta}) == {"classes": ("cat", "dog")}
