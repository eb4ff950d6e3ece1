"""Which checkpoint an export is made of: the one asked for or none, and the run is not touched."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import become_nobody, in_processes
from tests.train.made_runs import add_checkpoint, make_recipe, write_export
from train import export, writers
from train.checkpoint import Manifest
from train.errors import RequestError


@pytest.fixture(scope="session")
def going_on(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints, the last of them not evaluated."""
    run_dir = tmp_path_factory.mktemp("logs") / "finetune" / "20260101-000000-aaaa"
    add_checkpoint(run_dir, make_recipe(), 10, score=91.0)
    add_checkpoint(run_dir, make_recipe(), 25)
    return run_dir


@pytest.fixture
def unfinished(going_on: Path, tmp_path: Path) -> Path:
    """A copy of it whose files may be replaced."""
    shutil.copytree(going_on, tmp_path / "run", copy_function=os.link)
    return tmp_path / "run"


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def test_unfinished_run_gives_its_newest_or_its_best_and_is_not_touched(
    unfinished: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in unfinished.rglob("*")}
    newest = write_export(unfinished, "torchvision", tmp_path)[1].splitlines()
    (tmp_path / "model.pth").unlink()
    best = write_export(unfinished, "torchvision", tmp_path, best=True)[1].splitlines()

    assert newest[1].endswith("step 25 (epoch 2): not the end")
    assert newest[2] == "  scores   not evaluated at this step"
    assert best[1].endswith("step 10 (epoch 1): the best so far")
    assert best[2] == "  scores   top-1 91.00 %, top-5 99.00 %"
    assert {path: path.stat().st_mtime_ns for path in unfinished.rglob("*")} == before


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    replace(path, bytes(content))


def test_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no complete checkpoint in .* yet"):
        write_export(tmp_path, "mmcls", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_run_that_was_never_evaluated_has_no_best(tmp_path: Path) -> None:
    add_checkpoint(tmp_path / "run", make_recipe(), 10)

    with pytest.raises(RequestError, match="has been evaluated yet: leave --best out"):
        write_export(tmp_path / "run", "mmcls", tmp_path, best=True)


def test_damaged_checkpoint_is_refused_and_the_other_is_not(
    unfinished: Path, tmp_path: Path
) -> None:
    spoil(next((unfinished / "checkpoints").glob("step-00000025-*.pt")))

    with pytest.raises(RequestError, match=r"step-00000025-\w+\.pt is damaged: its SHA-256"):
        write_export(unfinished, "mmcls", tmp_path)
    assert not (tmp_path / "model.pth").exists()
    write_export(unfinished, "mmcls", tmp_path, best=True)


@pytest.mark.parametrize("pattern", ["step-00000025-*.pt", "step-00000025.json"])
def test_checkpoint_that_cannot_be_read_is_not_called_damaged(
    unfinished: Path, tmp_path: Path, pattern: str
) -> None:
    """A file of the kernel's stands for one of another user, which root could read."""
    [path] = (unfinished / "checkpoints").glob(pattern)
    path.unlink()
    path.symlink_to("/proc/self/mem")

    with pytest.raises(RequestError) as refusal:
        write_export(unfinished, "mmcls", tmp_path)
    assert str(refusal.value) == (
        f"{path} cannot be read (Input/output error): ask the run's owner to let you read it, "
        "or for a copy"
    )


def export_as_nobody(_rank: int, folder: str) -> tuple[int, str]:
    """Exit code and error of an export."""
    become_nobody()
    sys.argv = ["export", "--run", folder, "--layout", "mmcls", f"{folder}/model.pth"]
    with contextlib.redirect_stderr(io.StringIO()) as told:
        return export.main(), told.getvalue()


def test_folder_that_one_may_not_enter_is_named_and_the_target_not_blamed(workers: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        Path(name, "checkpoints").mkdir(mode=0)

        [(code, told)] = in_processes(workers, 1, export_as_nobody, name)

        assert (code, [each.name for each in Path(name).iterdir()]) == (2, ["checkpoints"])
        assert told == (
            f"error: {name}/checkpoints cannot be read (Permission denied): ask the run's owner to "
            "let you read it, or for a copy\n"
        )


def test_checkpoint_that_is_pruned_meanwhile_asks_to_try_again(
    unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [path] = (unfinished / "checkpoints").glob("step-00000025-*.pt")
    choose = writers.choose

    def choose_and_prune(folder: Path, *, best: bool) -> Manifest:
        chosen = choose(folder, best=best)
        path.unlink()
        return chosen

    monkeypatch.setattr(writers, "choose", choose_and_prune)
    with pytest.raises(RequestError, match=f"{path} has just been replaced by .*: try again"):
        write_export(unfinished, "mmcls", tmp_path)


def test_damaged_manifest_does_not_make_an_older_checkpoint_the_newest(
    unfinished: Path, tmp_path: Path
) -> None:
    manifest = unfinished / "checkpoints" / "step-00000025.json"
    replace(manifest, b"{")

    for best in (False, True):
        with pytest.raises(RequestError, match=r"step-00000025\.json is damaged, or the state"):
            write_export(unfinished, "mmcls", tmp_path, best=best)
    manifest.unlink()  # as pruning does
    assert "step 10" in write_export(unfinished, "mmcls", tmp_path)[1]
