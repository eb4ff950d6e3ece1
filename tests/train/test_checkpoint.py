"""Checkpoints: whole or not there, checked before they are trusted, pruned by age and score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from train import checkpoint
from train.errors import RequestError

CPU = torch.device("cpu")


def save(folder: Path, step: int, score: float | None = None, keep_last: int = 2) -> Path:
    state = {"step": step, "weight": torch.full((3,), float(step))}
    return checkpoint.save(folder, state, score=score, keep_last=keep_last)


def newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    return checkpoint.load_newest(folder, CPU)


def steps(folder: Path) -> list[int]:
    return [manifest.step for manifest in checkpoint.manifests(folder)]


def test_newest_state_comes_back_equal(tmp_path: Path) -> None:
    save(tmp_path, 9)
    save(tmp_path, 10)
    state, warnings = newest(tmp_path)

    assert state is not None
    assert state["step"] == 10
    assert torch.equal(state["weight"], torch.full((3,), 10.0))
    assert warnings == []


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path / "absent") == (None, [])


def test_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step, score in enumerate([50.0, 90.0, 70.0, None, 80.0], start=1):
        save(tmp_path, step, score)

    assert steps(tmp_path) == [2, 4, 5]
    assert len(list(tmp_path.iterdir())) == 6


def test_state_without_its_manifest_does_not_count(tmp_path: Path) -> None:
    """That is what a writer leaves that was killed between the two."""
    save(tmp_path, 1)
    save(tmp_path, 2).with_suffix(".json").unlink()
    (tmp_path / "step-00000003.partial").write_bytes(b"half")

    state, _ = newest(tmp_path)
    assert state is not None
    assert state["step"] == 1


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_newest_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "flipped" else content[:-1])

    state, warnings = newest(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert warnings == [f"{path} is damaged: its SHA-256 is not the one it was written with"]


def test_only_damaged_checkpoints_are_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    save(tmp_path, 1).write_bytes(b"")

    with pytest.raises(RequestError, match="move the folder away to start again"):
        newest(tmp_path)


def test_damaged_manifest_does_not_count(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2).with_suffix(".json").write_text('{"step": 2')

    assert steps(tmp_path) == [1]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 1, score=40.0)

    assert [manifest.score for manifest in checkpoint.manifests(tmp_path)] == [40.0]
