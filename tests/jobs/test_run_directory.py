"""The run directory: never half made, found by name, with the code and the origin of the run."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from jobs import failure, ledger, rundir
from jobs.errors import RequestError
from jobs.failure import Failure
from jobs.place import Place
from jobs.rundir import RunDirectory
from tests.jobs.workplace import as_another_user

PLACE = Place(0, 0, 1, 1, "12", 0, "node1", ("node1", "node2"), "12.0")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three runs: two of the name `first`, one of `second`."""
    for label in (
        "first/20260101-000000-aaaa",
        "first/20260103-000000-bbbb",
        "second/20260102-000000-cccc",
    ):
        folder = tmp_path / label
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "first/20260103-000000-bbbb"),
        ("first", "first/20260103-000000-bbbb"),
        ("logs/second", "second/20260102-000000-cccc"),
        ("aaaa", "first/20260101-000000-aaaa"),
        ("second/20260102-000000-cccc", "second/20260102-000000-cccc"),
    ],
)
def test_a_run_is_found_by_name_part_or_as_the_newest(
    root: Path, text: str | None, expected: str
) -> None:
    assert rundir.find_one(text, root).label == expected


def test_a_run_is_found_as_a_directory_wherever_it_is(root: Path, tmp_path: Path) -> None:
    folder = root / "first/20260101-000000-aaaa"

    assert rundir.find_one(str(folder), tmp_path / "elsewhere") == RunDirectory(folder)


@pytest.mark.parametrize(("text", "words"), [("2026", "part of 3 runs"), ("third", "'third'")])
def test_a_name_that_fits_no_run_or_several_is_refused(root: Path, text: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        rundir.find_one(text, root)


def test_a_run_that_fails_while_being_made_leaves_nothing(tmp_path: Path) -> None:
    run = rundir.reserve(tmp_path / "new" / "logs", "name")

    def fail(draft: RunDirectory) -> None:
        (draft.path / "file").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), rundir.create(run, 0o750, fail):
        pass

    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_to_start_leaves_nothing(tmp_path: Path) -> None:
    run = rundir.reserve(tmp_path / "new" / "logs", "name")

    def start() -> None:
        with rundir.create(run, 0o750, lambda draft: (draft.path / "file").touch()):
            assert (run.path / "file").exists()
            raise RequestError("sbatch says no")

    with pytest.raises(RequestError, match="sbatch says no"):
        start()

    assert list(tmp_path.iterdir()) == []


def test_nobody_else_may_write_beside_a_run_whatever_the_umask(tmp_path: Path) -> None:
    run = rundir.reserve(tmp_path, "finetune")

    before = os.umask(0)
    try:
        with rundir.create(run, 0o750, lambda draft: (draft.path / "file").touch()):
            pass
    finally:
        os.umask(before)

    modes = [stat.S_IMODE(folder.stat().st_mode) for folder in (run.path.parent, run.path)]
    assert modes == [0o755, 0o750]


def test_a_run_that_may_not_be_read_is_passed_over(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    mine, theirs = (RunDirectory(root / name / "run") for name in ("mine", "theirs"))
    for run in (mine, theirs):
        run.path.mkdir(parents=True)
        run.config.touch()
    theirs.path.chmod(0)

    with as_another_user(root):
        found = rundir.all_runs(Path())

    theirs.path.chmod(0o700)
    assert [run.path.parent.name for run in found] == ["mine"]


def test_runs_that_are_deleted_meanwhile_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        run = RunDirectory(tmp_path / "name" / name)
        run.path.mkdir(parents=True)
        run.config.touch()
    config = RunDirectory.config.fget

    def looked_at(run: RunDirectory) -> Path:
        if run.path.name == "a":
            shutil.rmtree(run.path)
            return Path("/")  # it was there a moment ago
        return config(run)

    monkeypatch.setattr(RunDirectory, "config", property(looked_at))

    assert [run.path.name for run in rundir.all_runs(tmp_path)] == ["b"]


def test_all_runs_of_a_name_that_are_deleted_meanwhile_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is looked at first, the other's folder goes."""
    for name in ("a", "b"):
        run = RunDirectory(tmp_path / name / "run")
        run.path.mkdir(parents=True)
        run.config.touch()
    config = RunDirectory.config.fget

    def looked_at(run: RunDirectory) -> Path:
        for other in set(tmp_path.iterdir()) - {run.path.parent}:
            shutil.rmtree(other)
        return config(run)

    monkeypatch.setattr(RunDirectory, "config", property(looked_at))

    assert len(rundir.all_runs(tmp_path)) == 1


def test_the_ledger_has_one_line_an_attempt_with_the_steps_of_its_own(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.metrics.write_text(
        '{"mode": "train", "step": 10, "attempt": 1}\n'
        '{"mode": "train", "step": 20, "attempt": 1}\n'
        '{"mode": "train", "step": 30, "attempt": 2}\n'
        '{"mode": "train", "st'
    )

    ledger.close_attempt(run, ledger.open_attempt(run, PLACE), "lost", None)
    ledger.close_attempt(run, ledger.open_attempt(run, PLACE), "finished", 0)

    assert [
        (line.attempt, line.reason, line.exit_code, line.first_step, line.last_step)
        for line in ledger.read(run)
    ] == [(1, "lost", None, 10, 20), (2, "finished", 0, 30, 30)]
    assert [line.nodes for line in ledger.read(run)] == [["node1", "node2"]] * 2


@pytest.mark.parametrize("has_links", [True, False])
def test_only_the_first_failure_of_an_attempt_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    run = RunDirectory(tmp_path)
    run.attempt(1).mkdir()
    first, second = Failure(3, "node2", 1, ["why"]), Failure(0, "node1", -9, [])

    assert [failure.claim(run, 1, each) for each in (first, second)] == [True, False]
    assert failure.read(run, 1) == first
    assert [path.name for path in run.attempt(1).iterdir()] == ["failure.json"]


def test_a_sweep_is_named_as_a_whole_and_its_elements_one_by_one(tmp_path: Path) -> None:
    def make(*parts: str) -> RunDirectory:
        run = RunDirectory(tmp_path.joinpath(*parts))
        run.path.mkdir(parents=True)
        run.config.touch()
        return run

    alone = make("lr", "20260101-120000-aaaa")
    elements = [make("lr", "20260102-120000-bbbb", f"{i}-seed={i}") for i in (0, 10, 2)]
    (tmp_path / "lr" / "20260102-120000-bbbb" / "sweep.json").write_text("{}")
    first, last, second = elements

    together = [first, second, last]
    assert first.label == "lr/20260102-120000-bbbb/0-seed=0"
    assert rundir.all_runs(tmp_path) == [alone, *together]
    for text in ("bbbb", "lr", "lr/20260102-120000-bbbb", str(first.path.parent), None):
        assert rundir.find_together(text, tmp_path) == together
        with pytest.raises(RequestError, match="sweep of 3 runs"):
            rundir.find_one(text, tmp_path)
    assert rundir.find_one("bbbb/10", tmp_path) == last
    assert rundir.find_together("aaaa", tmp_path) == [alone]
    with pytest.raises(RequestError, match="part of 4 runs"):
        rundir.find_together("20260", tmp_path)
