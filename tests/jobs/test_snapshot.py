"""The code of a run: what is copied, that it is shared and checked, and what provenance says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import repository, snapshot
from jobs.errors import WorkError
from jobs.rundir import RunDirectory
from tests.jobs.workplace import Workplace, ledger_lines

IGNORED = "*.secret\n__pycache__/\n/logs/\n"


def git(folder: Path, *arguments: str) -> str:
    """What git prints, with an identity and without this machine's settings."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", *identity, "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit_all(folder: Path) -> None:
    (folder / ".gitignore").write_text(IGNORED)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")


def run_once(workplace: Workplace, *arguments: str, **variables: str) -> RunDirectory:
    """A run to its end, on this machine."""
    before = set(workplace.runs)
    done = workplace.launch("--config", "stub.yaml", *arguments, STUB_STEPS="1", **variables)
    assert done.returncode == 0, done.stderr
    [run] = set(workplace.runs) - before
    return run


def names(run: RunDirectory) -> set[str]:
    """What was copied; the job has left Python's own files beside it."""
    files = {str(path.relative_to(run.code)) for path in run.code.rglob("*") if path.is_file()}
    return {name for name in files if "__pycache__" not in name}


def provenance(run: RunDirectory) -> dict[str, Any]:
    return json.loads(run.provenance.read_text())


def stored(workplace: Workplace) -> list[Path]:
    return sorted((workplace.logs / ".code").iterdir())


def copied(folder: Path, store: Path) -> dict[str, bytes]:
    """A snapshot of this project: each file's content."""
    snapshot.copy_code(folder, store)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_of(folder)}


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_snapshot_has_uncommitted_edits_and_new_files_but_no_ignored_ones(
    workplace: Workplace,
) -> None:
    project = workplace.project
    (project / "train" / "gone.py").touch()
    commit_all(project)
    (project / "train" / "gone.py").unlink()
    (project / "train" / "new.py").write_text("NEW = 1\n")
    (project / "train" / "my.secret").touch()
    (project / "configs" / "mit Leerzeichen und Ümlaut.yaml").write_text("{}\n")
    with (project / "configs" / "stub.yaml").open("a") as recipe:
        recipe.write("# edited\n")

    run = run_once(workplace, LC_ALL="C")

    assert {"launch.py", "train/new.py", "jobs/task.py", "configs/stub.yaml"} <= names(run)
    assert "configs/mit Leerzeichen und Ümlaut.yaml" in names(run)
    assert {"train/gone.py", "train/my.secret", ".gitignore"} & names(run) == set()
    assert (run.code / "configs" / "stub.yaml").read_text().endswith("# edited\n")
    assert (run.code / "train" / "new.py").stat().st_mode & 0o222 == 0
    diff = subprocess.run(
        ["git", "diff", "--binary", "--full-index", "HEAD", "--", *snapshot.PARTS],
        cwd=project,
        capture_output=True,
        check=True,
    ).stdout
    assert provenance(run)["commit"] == git(project, "rev-parse", "HEAD")
    assert provenance(run)["diff_sha256"] == hashlib.sha256(diff).hexdigest()
    assert provenance(run)["new_files"] == [
        "configs/mit Leerzeichen und Ümlaut.yaml",
        "train/new.py",
    ]


def test_a_clean_checkout_is_told_as_its_commit_alone(workplace: Workplace) -> None:
    commit_all(workplace.project)

    run = run_once(workplace)

    found = provenance(run)
    assert found["commit"] == git(workplace.project, "rev-parse", "HEAD")
    assert (found["diff_sha256"], found["new_files"]) == (None, [])


def test_how_a_person_looks_at_differences_does_not_change_their_hash(
    workplace: Workplace, tmp_path: Path
) -> None:
    commit_all(workplace.project)
    # Latin-1, as some old file may be: no UTF-8.
    (workplace.project / "train" / "__init__.py").write_bytes(b"# \xe4\n")
    (tmp_path / "gitconfig").write_text("[color]\nui = always\n[diff]\nexternal = echo\n")

    plain = run_once(workplace)
    mine = run_once(workplace, GIT_CONFIG_GLOBAL=str(tmp_path / "gitconfig"))

    assert provenance(plain)["diff_sha256"] == provenance(mine)["diff_sha256"] is not None


def clone(workplace: Workplace, how: Callable[[Path, Path], object]) -> Workplace:
    """The project once more, where `how` makes it from a repository of it."""
    commit_all(workplace.project)
    target = workplace.project.parent / "other" / "project"
    target.parent.mkdir()
    how(workplace.project, target)
    (target / "data").mkdir(exist_ok=True)
    archive = "cifar-10-python.tar.gz"
    shutil.copy(workplace.project / "data" / archive, target / "data" / archive)
    return Workplace(target, workplace.environment)


def add_worktree(project: Path, target: Path) -> None:
    git(project, "worktree", "add", "--quiet", str(target))


def add_submodule(project: Path, target: Path) -> None:
    git(target.parent, "init", "--quiet")
    git(target.parent, "submodule", "add", "--quiet", str(project), target.name)


@pytest.mark.parametrize("how", [add_worktree, add_submodule])
def test_a_worktree_and_a_submodule_are_repositories_too(
    workplace: Workplace, how: Callable[[Path, Path], object]
) -> None:
    other = clone(workplace, how)
    assert (other.project / ".git").is_file()
    (other.project / "train" / "new.py").touch()
    (other.project / "train" / "my.secret").touch()

    # As inside a hook of another repository.
    run = run_once(other, GIT_DIR="/nowhere", GIT_INDEX_FILE="/nowhere/index")

    assert "train/new.py" in names(run)
    assert "train/my.secret" not in names(run)
    assert provenance(run)["commit"] == git(workplace.project, "rev-parse", "HEAD")
    assert provenance(run)["new_files"] == ["train/new.py"]


def test_repositories_inside_the_project_are_copied_with_it(workplace: Workplace) -> None:
    library = workplace.project.parent / "library"
    library.mkdir()
    (library / "layers.py").touch()
    commit_all(library)
    commit_all(workplace.project)
    git(workplace.project, "submodule", "add", "--quiet", str(library), "train/library")
    shutil.copytree(library, workplace.project / "train" / "by_hand")
    (workplace.project / "train" / "by_hand" / "new.py").touch()
    (workplace.project / "train" / "by_hand" / "my.secret").touch()

    run = run_once(workplace)

    inside = {name for name in names(run) if name.startswith(("train/library", "train/by_hand"))}
    assert {name for name in inside if name.endswith((".py", ".secret"))} == {
        "train/library/layers.py",
        "train/by_hand/layers.py",
        "train/by_hand/new.py",
    }


def test_without_a_repository_every_file_is_copied_but_hidden_ones_and_pythons_own(
    workplace: Workplace,
) -> None:
    for name in ("train/a page.html", "train/.draft.swp", "train/__pycache__/old.pyc"):
        (workplace.project / name).parent.mkdir(exist_ok=True)
        (workplace.project / name).touch()
    (workplace.project / "train" / "images").symlink_to("/usr")

    run = run_once(workplace)

    copied = {name for name in names(run) if name.startswith("train/")}
    assert copied == {"train/__init__.py", "train/__main__.py", "train/a page.html"}
    found = provenance(run)
    assert (found["commit"], found["diff_sha256"], found["new_files"]) == (None, None, [])


def test_what_git_refuses_to_read_is_said_and_new_files_are_copied_all_the_same(
    workplace: Workplace,
) -> None:
    commit_all(workplace.project)
    (workplace.project / "train" / "new.html").touch()
    # What git has for its own tests: it takes the folder for another user's.
    doubtful = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1", "STUB_STEPS": "1"}

    done = workplace.launch("--config", "stub.yaml", **doubtful)

    [run] = workplace.runs
    assert "train/new.html" in names(run)
    assert provenance(run)["commit"] is None
    assert "warning: git does not read this project" in done.stderr
    assert "safe.directory" in done.stderr


def test_a_repository_without_git_installed_is_said(workplace: Workplace, tmp_path: Path) -> None:
    commit_all(workplace.project)

    done = workplace.launch("--config", "stub.yaml", PATH=str(tmp_path), STUB_STEPS="1")

    assert "warning: git does not read this project" in done.stderr
    assert done.stderr.count("\ngit: No such file or directory\n") == 1
    assert len(workplace.runs) == 1


def test_provenance_names_inputs_and_versions_but_not_the_environment(
    workplace: Workplace,
) -> None:
    weights = workplace.project / "weights.pth"
    weights.write_bytes(b"weights")

    run = run_once(workplace, "--set", f"model.weights={weights}", MY_SETTING="hunter2")

    found = provenance(run)
    assert found["archive_sha256"] == hashlib.sha256(b"an archive").hexdigest()
    assert found["weights_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert found["versions"]["submitit"]
    assert "launch.py --config stub.yaml" in found["command"]
    assert "hunter2" not in run.provenance.read_text()


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


@pytest.mark.parametrize("behaviour", ["", "crash:1"])
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
