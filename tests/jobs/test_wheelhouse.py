"""The wheels are those of the cluster's Python and platform, whatever this machine is."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.tags import Tag

from jobs import wheelhouse
from jobs.errors import RequestError
from jobs.notes import Notes
from jobs.target import Target, parse_target
from jobs.wheelhouse import LOCK, Requirement, fill, pip_command, read_lock
from tests.jobs.wheels import make_wheel

TARGET = Target("3.12", 28, "x86_64", "cuda")
A, B = "a" * 64, "b" * 64
LOCK_TEXT = f"""Numpy_Like==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:{A}
    # via torch
numpy-like==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:{A} \\
    --hash=sha256:{B}
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:{A}
nvidia-cublas==13.4.1.3 ; sys_platform == 'linux' \\
    --hash=sha256:{A}
nvidia-cufft==12.2 ; (platform_machine == 'aarch64' or platform_machine == 'x86_64') \\
    --hash=sha256:{A}
torch==2.15.0 \\
    --hash=sha256:{B}
triton==3.9.0 ; platform_machine == 'x86_64' \\
    --hash=sha256:{B}
"""


def test_markers_are_those_of_the_target_not_of_this_machine() -> None:
    both = frozenset((A, B))

    assert read_lock(LOCK_TEXT, TARGET)[0] == Requirement("numpy-like", "2.5.5", both)
    older = Target("3.11", 28, "x86_64", "cuda")
    assert read_lock(LOCK_TEXT, older)[0] == Requirement("numpy-like", "2.4.6", frozenset([A]))
    arm = [each.name for each in read_lock(LOCK_TEXT, Target("3.12", 28, "aarch64", "cuda"))]
    assert arm == ["numpy-like", "nvidia-cublas", "nvidia-cufft", "torch"]


def test_a_build_without_cuda_needs_none_of_its_libraries_and_has_other_hashes() -> None:
    target = Target("3.12", 28, "x86_64", "cpu")

    found = {each.name: each for each in read_lock(LOCK_TEXT, target)}

    assert list(found) == ["numpy-like", "torch"]
    assert found["torch"] == Requirement("torch", "2.15.0+cpu")


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_lock_has_every_package_once_for_every_target(python: str, machine: str) -> None:
    for torch in ("cuda", "cpu"):
        found = read_lock(LOCK.read_text(), Target(python, 28, machine, torch))
        names = [each.name for each in found]

        assert len(names) == len(set(names)) >= 35
        assert {"torch", "torchvision", "numpy", "submitit", "pydantic"} <= set(names)
        assert all(each.hashes for each in found if "+cpu" not in each.version)
        assert torch == "cuda" or not [name for name in names if name.startswith("nvidia")]


def test_an_older_glibc_s_wheels_are_taken_too_and_a_newer_one_s_are_not() -> None:
    for platform in ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux1"):
        assert Tag("cp312", "cp312", f"{platform}_x86_64") in TARGET.tags
    assert Tag("cp38", "abi3", "manylinux_2_17_x86_64") in TARGET.tags
    assert Tag("py3", "none", "any") in TARGET.tags
    assert Tag("cp312", "cp312", "manylinux_2_29_x86_64") not in TARGET.tags
    assert Tag("cp311", "cp311", "manylinux_2_17_x86_64") not in TARGET.tags
    arm = Target("3.12", 28, "aarch64", "cuda")
    assert arm.platforms[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]


def test_pip_is_asked_for_the_target_and_for_the_locked_file() -> None:
    requirement = Requirement("numpy", "2.5.5", frozenset([A]))

    command = pip_command(TARGET, requirement, Path("r.txt"), Path("wheels"))

    assert command[command.index("--python-version") + 1] == "3.12"
    assert command.count("--platform") == len(TARGET.platforms)
    assert {"--require-hashes", "--no-deps"} <= set(command)
    assert "--index-url" not in command


def test_only_torch_s_own_builds_come_from_another_index() -> None:
    command = pip_command(TARGET, Requirement("torch", "2.15.0+cpu"), Path("r.txt"), Path("wheels"))

    assert command[command.index("--index-url") + 1] == "https://download.pytorch.org/whl/cpu"
    assert "--require-hashes" not in command


@pytest.mark.parametrize(
    ("python", "platform", "part"),
    [
        ("3.10", "manylinux_2_28_x86_64", "--python 3.10: the project needs a Python of >=3.11"),
        ("3", "manylinux_2_28_x86_64", "--python 3"),
        ("3.11", "win_amd64", "--platform win_amd64: expected manylinux_2_N_x86_64"),
        ("3.11", "linux_x86_64", "ldd --version"),
    ],
)
def test_a_target_that_cannot_be_is_refused(python: str, platform: str, part: str) -> None:
    with pytest.raises(RequestError, match=part):
        parse_target(python, platform, "cuda")


def test_the_old_name_of_a_platform_is_understood() -> None:
    assert parse_target("3.11", "manylinux2014_x86_64", "cuda").glibc == 17


def test_right_wheels_are_kept_and_all_others_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    right = make_wheel(wheels, "one-1.0-cp312-cp312-manylinux_2_17_x86_64.whl")
    other = make_wheel(wheels, "one-1.0-cp311-cp311-manylinux_2_17_x86_64.whl")
    damaged = make_wheel(wheels, "two-2.0-py3-none-any.whl")
    make_wheel(wheels, "two-1.0-py3-none-any.whl")
    (wheels / "notes.txt").write_text("mine")
    (wheels / "two-2.0-py3-none-any.whl").write_bytes(b"half")
    lock = tmp_path / "lock"
    lock.write_text(
        f"one==1.0 --hash=sha256:{right} --hash=sha256:{other}\ntwo==2.0 --hash=sha256:{damaged}\n"
    )
    asked = []
    monkeypatch.setattr(wheelhouse, "_download", lambda *arguments: asked.append(arguments[2]))

    house = fill(wheels, TARGET, Notes(tmp_path), lock)

    assert [path.name for path in wheels.iterdir()] == [
        "one-1.0-cp312-cp312-manylinux_2_17_x86_64.whl"
    ]
    assert house.requirements == f"one==1.0 --hash=sha256:{right}\n"
    assert [each.pin for each in asked] == ["two==2.0"] == [each.pin for each in house.missing]
    told = capsys.readouterr().err
    assert "two-2.0-py3-none-any.whl: is damaged" in told
    assert "notes.txt: is no wheel" in told
    assert "cp311-cp311-manylinux_2_17_x86_64.whl: is not of this bundle" in told


def test_pip_fetches_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, from a folder that its settings name; for another Python than this one."""
    index = tmp_path / "index"
    index.mkdir()
    name = "onewheel-1.0-cp314-cp314-manylinux_2_17_x86_64.whl"
    sha256 = make_wheel(index, name)
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lock = tmp_path / "lock"
    lock.write_text(f"onewheel==1.0 ; python_version == '3.14' \\\n    --hash=sha256:{sha256}\n")

    house = fill(tmp_path / "wheels", Target("3.14", 28, "x86_64", "cuda"), Notes(tmp_path), lock)

    assert house.missing == []
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == [name]


def test_pip_takes_no_file_of_another_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    make_wheel(index, "onewheel-1.0-py3-none-any.whl")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lock = tmp_path / "lock"
    lock.write_text(f"onewheel==1.0 --hash=sha256:{A}\n")

    house = fill(tmp_path / "wheels", TARGET, Notes(tmp_path), lock)

    assert [each.pin for each in house.missing] == ["onewheel==1.0"]
    assert list((tmp_path / "wheels").iterdir()) == []
    assert "HASHES" in capfd.readouterr().err
