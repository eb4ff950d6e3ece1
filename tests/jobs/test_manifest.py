"""A bundle is checked wherever it was carried, with our tool and with sha256sum alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from jobs import manifest
from jobs.errors import RequestError, WorkError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    bundle = tmp_path / "bundle"
    (bundle / "wheels").mkdir(parents=True)
    (bundle / "README.txt").write_text("read me")
    (bundle / "wheels" / "a.whl").write_bytes(b"a wheel")
    names = ("README.txt", "wheels/a.whl")
    manifest.write(bundle, {name: manifest.measure(bundle / name) for name in names}, {})
    return bundle


def sha256sum(bundle: Path) -> subprocess.CompletedProcess[str]:
    command = ["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"]
    return subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)


def test_a_whole_bundle_passes_both(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    carried = bundle.rename(bundle.with_name("elsewhere"))

    assert manifest.verify(carried) == 0
    assert capsys.readouterr().out == f"{carried}: all 2 files are as manifest.json says\n"
    assert sha256sum(carried).returncode == 0


def test_missing_damaged_and_surplus_files_are_named(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "README.txt").unlink()
    (bundle / "wheels" / "a.whl").write_bytes(b"a whee1")
    (bundle / "wheels" / "b.whl").touch()

    with pytest.raises(WorkError, match="3 of the files"):
        manifest.verify(bundle)

    assert capsys.readouterr().out.splitlines() == [
        "missing  README.txt: is not there",
        "damaged  wheels/a.whl: has another SHA-256",
        "surplus  wheels/b.whl: is in no list",
    ]
    assert "wheels/a.whl: FAILED" in sha256sum(bundle).stdout


def test_a_truncated_file_is_told_by_its_size(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "wheels" / "a.whl").write_bytes(b"a")

    with pytest.raises(WorkError):
        manifest.verify(bundle)

    assert capsys.readouterr().out == "damaged  wheels/a.whl: has 1 bytes, not 7\n"


def test_a_damaged_list_is_told(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sums = bundle / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("a", "b"))

    with pytest.raises(WorkError):
        manifest.verify(bundle)

    assert "damaged  SHA256SUMS: does not say what manifest.json says" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"files": 5}',
        '{"files": {}}',
        '{"files": {"README.txt": {}}}',
        '{"files": {"README.txt": {"size": "7", "sha256": "00"}}}',
        '{"files": {"README.txt": {"size": 7, "sha256": null}}}',
    ],
)
def test_a_damaged_manifest_is_told(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)

    with pytest.raises(WorkError, match=r"manifest.json is damaged"):
        manifest.verify(bundle)


def test_another_folder_is_no_bundle(bundle: Path) -> None:
    with pytest.raises(RequestError, match=r"is no bundle, for it has no manifest.json"):
        manifest.verify(bundle / "wheels")


def test_a_bundle_without_the_other_list_is_not_whole(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "SHA256SUMS").unlink()

    with pytest.raises(WorkError):
        manifest.verify(bundle)

    assert capsys.readouterr().out == "missing  SHA256SUMS: is not there\n"


def test_the_lists_are_the_same_for_the_same_files(bundle: Path, tmp_path: Path) -> None:
    names = ("wheels/a.whl", "README.txt")
    again = shutil.copytree(bundle, tmp_path / "again")
    manifest.write(again, {name: manifest.measure(again / name) for name in names}, {})

    for name in ("manifest.json", "SHA256SUMS"):
        assert (bundle / name).read_bytes() == (again / name).read_bytes()
