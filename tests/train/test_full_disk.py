"""A disk that is full or read-only: training goes on, and no number is lost or wrong."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.schema import Recipe
from tests.train.conftest import in_processes
from tests.train.runs import board, changed, results, rows, shown_by_data_server, without_timings
from train import checkpoint

Attempt = Callable[..., bool]
MEASURED = (
    "train/images_per_second",
    *(f"train/time/{part}" for part in ("data", "forward_backward", "optimizer")),
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a file system of so many MB, in memory."""
    mounted: list[Path] = []

    def mount(name: str, megabytes: int, options: str = "") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m{options}", "tmpfs", folder]
        if os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
            if os.environ.get("CI") == "true":
                pytest.fail("a small disk needs root and the right to mount")
            pytest.skip("a small disk needs root and the right to mount")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    ("megabytes", "options", "words"),
    [(40, "", "No space left on device"), (1, ",ro", "Read-only file system")],
)
def test_checkpoints_that_cannot_be_written_are_a_warning_and_training_goes_on(
    recipe: Recipe,
    whole_run: Callable[..., Path],
    make_run: Callable[..., Path],
    attempt: Attempt,
    small_disk: Callable[..., Path],
    megabytes: int,
    options: str,
    words: str,
) -> None:
    """One checkpoint of the shallow network has 64 MB."""
    whole = whole_run(recipe)
    run_dir = make_run(recipe)
    (run_dir / "checkpoints").symlink_to(small_disk("disk", megabytes, options))
    assert attempt(run_dir)
    warning = f"warning: the checkpoint of step 3 could not be written to {run_dir / 'checkpoints'}"
    assert f"{warning} ({words})" in (run_dir / "rank-0.log").read_text()
    assert results(run_dir)["weights_sha256"] == results(whole)["weights_sha256"]
    assert list((run_dir / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    ("filler", "options", "words"),
    [(2**20, "", "No space left on device"), (0, ",ro", "Read-only file system")],
)
def test_a_trace_that_cannot_be_written_is_a_warning_and_training_goes_on(
    recipe: Recipe,
    make_run: Callable[..., Path],
    attempt: Attempt,
    small_disk: Callable[..., Path],
    filler: int,
    options: str,
    words: str,
) -> None:
    recipe = changed(recipe, "train", max_steps=5, batch_size=8)
    recipe = changed(changed(recipe, "logging", profile_steps=1), "data", test_images=10)
    run_dir = make_run(recipe)
    disk = small_disk("disk", 1, options)
    if filler:
        (disk / "filler").write_bytes(bytes(filler))
    (run_dir / "profile").symlink_to(disk)

    assert attempt(run_dir)
    trace = run_dir / "profile" / "rank-000.pt.trace.json.gz"
    assert (
        f"warning: no trace was written to {trace} ({words})"
        in (run_dir / "rank-0.log").read_text()
    )
    assert [path.name for path in disk.iterdir()] == ["filler"] * bool(filler)
    assert results(run_dir)["steps"] == 5


class FillsDisk:
    """A stop flag, looked at before every step, that fills the disk at one and clears it later.

    Not before `saved` checkpoints are complete, which are written while training goes on.
    """

    def __init__(self, folder: Path, at: int, until: float, saved: int) -> None:
        self.folder, self.filler = folder, folder / "filler"
        self.at, self.until, self.saved = at, until, saved
        self.looks = 0

    @property
    def is_set(self) -> bool:
        self.looks += 1
        if self.looks == self.at:
            patience = time.monotonic() + 60
            while len(checkpoint.manifests(self.folder / "checkpoints")) < self.saved:
                assert time.monotonic() < patience
                time.sleep(0.05)
            with self.filler.open("wb", buffering=0) as file:
                for size in (2**20, 1):
                    try:
                        while file.write(b"x" * size) == size:
                            pass
                    except OSError:
                        continue
        elif self.looks == self.until:
            self.filler.unlink()
        return False


def _train(_rank: int, run_dir: Path, at: int, until: float, saved: int) -> str:
    from train.errors import RequestError
    from train.worker import run

    try:
        return str(run(run_dir, FillsDisk(run_dir, at, until, saved)))
    except RequestError as error:
        return str(error)


def test_lines_that_a_full_disk_refused_are_written_when_there_is_room(
    recipe: Recipe,
    whole_run: Callable[..., Path],
    workers: Any,
    small_disk: Callable[..., Path],
) -> None:
    whole = whole_run(recipe)
    run_dir = small_disk("disk", 240)
    shutil.copy(whole / "config.yaml", run_dir)

    assert in_processes(workers, 1, _train, run_dir, 2, 8, 0) == ["True"]
    assert results(run_dir)["weights_sha256"] == results(whole)["weights_sha256"]
    assert without_timings(run_dir) == without_timings(whole)
    for reader in (board, shown_by_data_server):
        shown = [
            {tag: curve for tag, curve in reader(path).items() if tag not in MEASURED}
            for path in (run_dir, whole)
        ]
        assert shown[0] == shown[1]


def test_results_that_cannot_be_written_are_told_and_made_when_resumed(
    recipe: Recipe,
    make_run: Callable[..., Path],
    attempt: Attempt,
    workers: Any,
    small_disk: Callable[..., Path],
) -> None:
    run_dir = small_disk("disk", 240)
    shutil.copy(make_run(recipe) / "config.yaml", run_dir)
    # Full from the last but one step of the second epoch on: only the first one's state is there.
    [words] = in_processes(workers, 1, _train, run_dir, 8, math.inf, 1)
    assert words.startswith("training has ended, but the results cannot be written to ")
    assert "Make room and resume the run" in words
    assert [m.step for m in checkpoint.manifests(run_dir / "checkpoints")] == [3]

    (run_dir / "filler").unlink()
    assert attempt(run_dir)
    assert results(run_dir)["steps"] == 6
    assert [row["step"] for row in rows(run_dir)] == [2, 3, 4, 6, 6]
