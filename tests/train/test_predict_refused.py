"""What a prediction cannot be made of is one clear line, before the model is read if it can be."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import become_nobody, in_processes
from tests.train.made_runs import make_run
from tests.train.predictions import digits, run, state
from train import photos, predict, writers

__all__ = ["digits", "state"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--classes", "a,b"], "it says its classes itself: leave --classes out"),
        (["--resolution", "64"], "it says its resolution itself: leave --resolution out"),
    ],
)
def test_what_a_file_says_is_not_asked_for(
    options: list[str],
    words: str,
    state: Path,
    digits: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ("--checkpoint", state, *options, digits / "0000.png")
    code, rows, err = run(capfdbinary, monkeypatch, *arguments)

    assert (code, rows) == (2, [])
    assert err == f"error: {state} cannot be used: {words}\n"


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    writers.export(make_run(folder), "torchvision", folder / "bare.pth", best=False)
    return folder / "bare.pth"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "does not say the names of its classes: --classes a,b,c in the order"),
        (["--classes", "a,b"], "does not say the side in pixels that it was trained at"),
        (["--classes", "a,b", "--resolution", "32"], "it has 10 outputs, but 2 classes"),
        (["--classes", "a", "--resolution", "32"], "--classes: "),
        (["--classes", "a,,b", "--resolution", "32"], "its classes are no list of names"),
        (["--classes", "a,b", "--resolution", "3"], "--resolution: "),
        (["--classes", "a,b", "--resolution", "32", "--std", "0,1,1"], "--std: "),
    ],
)
def test_what_a_bare_file_does_not_say_must_be_given(
    options: list[str],
    words: str,
    bare: Path,
    digits: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ("--checkpoint", bare, *options, digits / "0000.png")
    code, rows, err = run(capfdbinary, monkeypatch, *arguments)

    assert (code, rows) == (2, [])
    assert err.startswith(f"error: {bare} cannot be used: ")
    assert words in err
    assert err.count("\n") == 1


def test_nothing_to_do_and_names_of_nothing_are_refused_before_the_model_is_read(
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "notes.txt").touch()
    for source, words in (
        (tmp_path, f"there is no image in {tmp_path}"),
        (tmp_path / "gone", f"there is no file or folder {tmp_path / 'gone'}"),
    ):
        code, rows, err = run(capfdbinary, monkeypatch, "--checkpoint", "nowhere.pth", source)

        assert (code, rows, err) == (2, [], f"error: {words}\n")


def predict_as_nobody(_rank: int, photo: Path) -> tuple[int, list[Path], str]:
    """Exit code, what is left of the sources, and the error of a prediction."""
    become_nobody()
    sys.argv = ["predict", "--checkpoint", "nowhere.pth", str(photo)]
    with contextlib.redirect_stderr(io.StringIO()) as told:
        return predict.main(), list(photos.find_images([photo], print)), told.getvalue()


def test_source_below_a_folder_that_one_may_not_enter_is_named(workers: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        Path(name, "closed").mkdir(mode=0)
        photo = Path(name, "closed", "photo.png")

        [(code, found, told)] = in_processes(workers, 1, predict_as_nobody, photo)

    assert (code, found) == (2, [photo])
    assert told == f"error: {photo} cannot be read: Permission denied\n"


@pytest.mark.parametrize("text", ["", '"a', 'a,"b"c', "a\nb"])
def test_class_names_that_are_no_row_of_csv_are_refused(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        predict.make_parser().parse_args(["--checkpoint", "a.pth", "--classes", text, "photos"])
    assert f"--classes: expected names as a row of CSV, got {text!r}" in capsys.readouterr().err


def test_no_checkpoint_is_one_line(
    digits: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run(capfdbinary, monkeypatch, "--checkpoint", "nowhere.pth", digits)

    assert (code, err) == (2, "error: there is no file nowhere.pth\n")
