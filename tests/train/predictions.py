"""What the tests of predictions work with: a checkpoint away from its run, and images in files."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.train.made_runs import add_checkpoint, make_recipe
from train import predict
from train.dataset import load_dataset
from train.prediction import BATCH

CPU = torch.device("cpu")
COUNT = BATCH + 6


@pytest.fixture(scope="session")
def state(shared_folder: Callable[[str], AbstractContextManager[Path]]) -> Path:
    """A run's checkpoint, taken away from its run."""
    with shared_folder("taken") as folder:
        if not list(folder.glob("step-*")):
            path = add_checkpoint(folder / "run", make_recipe(), 10, score=50.0)
            shutil.move(path, folder / path.name)
            shutil.rmtree(folder / "run")
        [path] = folder.glob("step-*")
    return path


@pytest.fixture(scope="session")
def digits(digits_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first test images as PNG files, in their order."""
    folder = tmp_path_factory.mktemp("digits")
    data = make_recipe().data.model_copy(update={"root": str(digits_root)})
    for number, image in enumerate(load_dataset(data, CPU).test.images[:COUNT]):
        Image.fromarray(image.numpy()).save(folder / f"{number:04d}.png")
    return folder


def run(
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    *arguments: object,
) -> tuple[int, list[list[str]], str]:
    """`python -m train.predict ARGUMENTS`: exit code, rows, messages."""
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
    code = predict.main()
    out, err = capfdbinary.readouterr()
    return code, list(csv.reader(io.StringIO(out.decode()))), err.decode()
