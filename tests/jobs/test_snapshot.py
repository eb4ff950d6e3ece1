"""The code of runs: that equal files are shared, and that what was changed is found."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import repository, snapshot
from jobs.errors import WorkError
from jobs.rundir import RunDirectory
from tests.jobs.snapshots import (
    copied,
    files_of,
    names,
    provenance,
    run_once,
    stored,
)
from tests.jobs.workplace import Workplace, ledger_lines


def test_the_code_hash_is_that_of_the_list_that_sha256sum_checks(workplace: Workplace) -> None:
    first, second = run_once(workplace), run_once(workplace)
    (workplace.project / "train" / "new.py").touch()
    third = run_once(workplace)

    hashes = [provenance(run)["code_sha256"] for run in (first, second, third)]
    assert hashes[0] == hashes[1] != hashes[2]
    for run, code_sha256 in zip((first, second, third), hashes, strict=True):
        sums = run.code / "SHA256SUMS"
        subprocess.run(["sha256sum", "--check", "--quiet", sums], cwd=run.code, check=True)
        assert hashlib.sha256(sums.read_bytes()).hexdigest() == code_sha256
        listed = {line[66:] for line in sums.read_text().splitlines()}
        assert listed == names(run) - {"SHA256SUMS"}


def test_equal_files_of_runs_are_one_file_and_a_copied_run_is_whole(
    workplace: Workplace, tmp_path: Path
) -> None:
    first = run_once(workplace)
    (workplace.project / "train" / "new.py").write_text("NEW = 1\n")
    second = run_once(workplace)

    shared = names(first) - {"SHA256SUMS"}
    assert all((first.code / name).samefile(second.code / name) for name in shared)
    assert names(second) - names(first) == {"train/new.py"}
    shutil.copytree(first.path, tmp_path / "copy")
    shutil.rmtree(workplace.logs)
    assert names(RunDirectory(tmp_path / "copy")) == shared | {"SHA256SUMS"}
    assert snapshot.changed_files(tmp_path / "copy" / "code") == []


def test_stored_files_that_no_run_has_go_with_a_later_launch(workplace: Workplace) -> None:
    module = workplace.project / "train" / "new.py"
    module.write_text("NEW = 1\n")
    first = run_once(workplace)
    of_first = stored(workplace)
    module.write_text("NEW = 2\n")
    shutil.rmtree(first.path)

    second = run_once(workplace)

    assert all(path.stat().st_nlink > 1 for path in stored(workplace))
    assert len(stored(workplace)) == len(of_first)
    assert len(set(stored(workplace)) - set(of_first)) == 1
    assert (second.code / "train" / "new.py").read_text() == "NEW = 2\n"


@pytest.mark.parametrize("harm", ["edited", "writable", "empty"])
def test_a_damaged_or_edited_file_of_the_store_is_never_used_again(
    tmp_path: Path, harm: str
) -> None:
    whole = copied(tmp_path / "first", tmp_path / ".code")
    victim = tmp_path / "first" / "train" / "loop.py"
    victim.chmod(0o644)
    if harm != "writable":
        victim.write_text("EDITED = True\n" if harm == "edited" else "")
        victim.chmod(0o444)

    second = copied(tmp_path / "second", tmp_path / ".code")
    third = copied(tmp_path / "third", tmp_path / ".code")

    assert second == third == whole
    again = tmp_path / "second" / "train" / "loop.py"
    assert again.stat().st_mode & 0o777 == 0o444
    assert again.samefile(tmp_path / "third" / "train" / "loop.py")
    assert not again.samefile(victim)


@pytest.mark.parametrize("obstacle", ["no links", "no store"])
def test_where_no_links_can_be_made_each_run_has_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    store = tmp_path / ".code"
    if obstacle == "no links":
        monkeypatch.setattr(os, "link", refuse)
    else:
        store.touch()

    first, second = copied(tmp_path / "first", store), copied(tmp_path / "second", store)

    assert first == second
    assert {path.stat().st_nlink for path in files_of(tmp_path / "first")} == {1}
    assert files_of(store) == []


def test_launches_at_once_get_whole_snapshots_whatever_is_in_the_store(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from jobs import snapshot\n"
        "for number in range(10):\n"
        "    folder = Path(f'{sys.argv[1]}-{number}')\n"
        "    print(snapshot.copy_code(folder, Path(sys.argv[2])))\n"
        "    assert snapshot.changed_files(folder) == []\n"
        # Now and then the store has files that no run has, which the others take away.
        "    if number % 3 == 0:\n"
        "        import shutil; shutil.rmtree(folder)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / f"run{index}"), str(tmp_path / ".code")],
            cwd=repository.PROJECT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(3)
    ]

    answers = [process.communicate(timeout=120)[0].split() for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0]
    [_] = {sha256 for answer in answers for sha256 in answer}
    assert [len(answer) for answer in answers] == [10, 10, 10]


def test_a_file_that_is_gone_by_the_time_it_is_copied_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "code_files", lambda: [Path("train/gone.py")])

    with pytest.raises(WorkError, match=r"cannot be copied into the run: .*train/gone\.py"):
        snapshot.copy_code(tmp_path / "code", tmp_path / ".code")


def test_what_has_changed_is_named_whatever_became_of_it(tmp_path: Path) -> None:
    copied(tmp_path / "code", tmp_path / ".code")
    assert snapshot.changed_files(tmp_path / "code") == []

    (tmp_path / "code" / "launch.py").unlink()
    shutil.rmtree(tmp_path / "code" / "train")
    (tmp_path / "code" / "train").touch()
    (tmp_path / "code" / "core.123").touch()  # what a job leaves in its folder

    own = [path.as_posix() for path in snapshot.code_files() if path.parts[0] == "train"]
    assert snapshot.changed_files(tmp_path / "code") == ["launch.py", *own]

    for damage in (b"\0" * 100, b"a  b\0c\n", b"\xff"):
        (tmp_path / "code" / "SHA256SUMS").chmod(0o644)
        (tmp_path / "code" / "SHA256SUMS").write_bytes(damage)
        assert len(snapshot.changed_files(tmp_path / "code")) == 1


@pytest.mark.parametrize("behaviour", ["", "crash:0"])
def test_a_run_whose_code_was_changed_is_refused_by_name_however_it_ended(
    workplace: Workplace, behaviour: str
) -> None:
    workplace.launch("--config", "stub.yaml", STUB_STEPS="1", STUB=behaviour)
    [run] = workplace.runs
    run.results.unlink(missing_ok=True)
    module = run.code / "train" / "__init__.py"
    module.unlink()
    module.write_text("EDITED = True\n")
    before = {path: path.read_bytes() for path in files_of(run.attempt(1))}

    done = workplace.launch("resume", run.label)

    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(
        f"error: {run.code} is not the code that was submitted, train/__init__.py has changed"
    )
    assert done.returncode == 2
    assert len(ledger_lines(run)) == 1
    assert before == {path: path.read_bytes() for path in files_of(run.attempt(1))}
