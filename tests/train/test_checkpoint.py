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
    manifest = checkpoint.write(folder, state, score=score, keep_last=keep_last)
    return folder / manifest.file


def newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    manifest, warnings = checkpoint.newest_intact(folder)
    return checkpoint.load(folder, manifest, CPU) if manifest else None, warnings


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
    orphan = save(tmp_path, 2)
    (tmp_path / "step-00000002.json").unlink()
    (tmp_path / "step-00000003.pt.partial").write_bytes(b"half")

    state, warnings = newest(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert warnings == [f"{orphan} is passed over: no manifest says that it is complete"]


def test_next_save_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    orphan = save(tmp_path, 2)
    (tmp_path / "step-00000002.json").unlink()
    kept = save(tmp_path, 3)
    checkpoint.remove_unfinished(tmp_path)

    assert not orphan.exists()
    assert sorted(tmp_path.iterdir()) == [kept, tmp_path / "step-00000003.json"]


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    marker = tmp_path / "was here"
    manifest = checkpoint.write(
        tmp_path / "c", {"step": 1, "bad": Touches(marker)}, score=None, keep_last=2
    )
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        checkpoint.load(tmp_path / "c", manifest, CPU)

    assert not marker.exists()


class Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


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


def test_after_a_fall_back_what_is_saved_is_kept_and_the_damaged_one_forgotten(
    tmp_path: Path,
) -> None:
    save(tmp_path, 20)
    save(tmp_path, 30).write_bytes(b"")
    newest(tmp_path)
    save(tmp_path, 25, keep_last=1)

    assert steps(tmp_path) == [25]
    assert newest(tmp_path)[1] == []


def test_only_a_damaged_manifest_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000001.json").write_text("")

    with pytest.raises(RequestError, match=r"step-00000001.json is damaged"):
        newest(tmp_path)


def test_only_damaged_checkpoints_are_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    save(tmp_path, 1).write_bytes(b"")

    with pytest.raises(RequestError, match="move the folder away to start again"):
        newest(tmp_path)


def test_damaged_manifest_does_not_count(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "step-00000002.json").write_text('{"step": 2')

    assert steps(tmp_path) == [1]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 1, score=40.0)

    assert [manifest.score for manifest in checkpoint.manifests(tmp_path)] == [40.0]
    assert len(list(tmp_path.iterdir())) == 2


def test_failed_write_keeps_what_was_there_and_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full at the very end, when the state itself fitted."""
    save(tmp_path, 1)
    before = sorted(tmp_path.iterdir())

    def full(_source: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2)

    assert sorted(tmp_path.iterdir()) == before
