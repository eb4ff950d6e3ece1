"""What of the project is the code of a run, in git and out of it, and what provenance says."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import snapshot
from tests.jobs.snapshots import (
    commit_all,
    git,
    names,
    provenance,
    run_once,
)
from tests.jobs.workplace import Workplace

WEIGHTS = b"PK\x03\x04weights"


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
    weights.write_bytes(WEIGHTS)

    run = run_once(workplace, "--set", f"model.weights={weights}", MY_SETTING="hunter2")

    found = provenance(run)
    assert found["archive_sha256"] == hashlib.sha256(b"an archive").hexdigest()
    assert found["weights_sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert found["versions"]["submitit"]
    assert "launch.py --config stub.yaml" in found["command"]
    assert "hunter2" not in run.provenance.read_text()
