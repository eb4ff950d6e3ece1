"""The mistakes that a run leaves for its report: the right ones, in order, as they look."""

from __future__ import annotations

import base64
import io
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from configs.schema import Recipe
from tests.train.runs import results, without_timings
from train.dataset import load_dataset
from train.evaluate import Scores
from train.journal import Journal
from train.pictures import (
    GRID,
    confusion_picture,
    mistakes_picture,
    mistakes_table,
    surest_mistakes,
)


def scores(predictions: list[int], confidences: list[float]) -> Scores:
    """Scores of images that are all of class 0."""
    return Scores(
        loss=0.0,
        top5=torch.ones(len(predictions), dtype=torch.bool),
        predictions=torch.tensor(predictions),
        confidences=torch.tensor(confidences, dtype=torch.float64),
        labels=torch.zeros(len(predictions), dtype=torch.int64),
        num_classes=3,
        num_batches=1,
    )


def pixels(png: bytes) -> np.ndarray:
    """The colours of a picture, uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_the_surest_mistakes_come_first_and_equal_ones_by_their_place() -> None:
    assert surest_mistakes(scores([1, 0, 2, 1, 1], [0.5, 0.99, 0.7, 0.5, 0.9])) == [4, 2, 0, 3]
    assert surest_mistakes(scores([0, 0], [0.5, 0.9])) == []
    assert surest_mistakes(scores([1] * 99, [0.5] * 99)) == list(range(GRID**2))


def test_a_mistake_is_told_with_its_picture_to_the_last_pixel() -> None:
    images = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
    [told] = mistakes_table(scores([0, 2], [0.9, 0.8]), images, ["cat", "dog", "<b>"])

    png = base64.b64decode(str(told.pop("png")))
    assert told == {"index": 1, "true": "cat", "predicted": "<b>", "confidence": 0.8}
    assert np.array_equal(pixels(png), images[1].numpy())


def test_the_picture_of_mistakes_has_each_in_its_square_surest_first_row_by_row() -> None:
    colours = torch.tensor(
        [[200, 0, 0], [0, 200, 0], [0, 0, 200], [9, 99, 0], [0, 9, 99], [99, 0, 9]]
    )
    images = colours.to(torch.uint8)[:, None, None].expand(6, 32, 32, 3)
    confidences = [0.5, 0.9, 0.7, 0.6, 0.8, 0.4]
    picture = mistakes_picture(scores([1] * 6, confidences), images, ["cat", "dog", "cow"])

    assert picture.shape == (880, 800, 3)
    surest_first = colours[torch.tensor(confidences).argsort(descending=True)].numpy()
    for place, colour in enumerate(surest_first):
        rows, columns = np.nonzero((picture == colour).all(axis=2))
        assert np.ptp(rows) == pytest.approx(128, abs=2)
        assert np.ptp(columns) == pytest.approx(128, abs=2)
        row, column = divmod(place, GRID)
        assert (rows.min() // 176, rows.max() // 176) == (row, row)
        assert (columns.min() // 160, columns.max() // 160) == (column, column)
        text = picture[176 * row : rows.min() - 1, 160 * column : 160 * (column + 1)]
        assert (text < 128).any(), "its classes stand over it"


def test_the_picture_of_no_mistakes_says_so() -> None:
    picture = mistakes_picture(scores([0], [0.9]), torch.zeros(1, 32, 32, 3), ["cat", "dog", "cow"])

    assert (picture < 128).any()


def test_a_class_whose_name_looks_like_a_formula_is_drawn_as_it_is() -> None:
    names = ["US$ (5_$)", "$x^$", "plain"]
    made = scores([1, 2], [0.5, 0.9])

    assert confusion_picture(made.confusion.numpy(), names).std() > 0
    assert mistakes_picture(made, torch.zeros(2, 32, 32, 3, dtype=torch.uint8), names).std() > 0


def test_a_thousand_classes_are_a_picture_within_seconds() -> None:
    counts = np.eye(1000, dtype=np.int64)
    began = time.process_time()

    picture = confusion_picture(counts, [f"class {number}" for number in range(1000)])

    assert time.process_time() - began < 20  # with a text in each of them it took 1,500 s
    assert picture.std() > 0


def test_no_picture_is_worth_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path, Recipe(), 0, is_evaluated=False)

    def draw() -> np.ndarray:
        raise ValueError("no such font")

    assert journal.drawn("confusion_matrix", draw) is None
    assert "warning: no picture of the confusion matrix: no such font" in capsys.readouterr().out
    journal.close()


@pytest.mark.slow
def test_a_finished_run_that_is_started_again_leaves_the_same_results_and_mistakes(
    recipe: Recipe,
    whole_run: Callable[..., Path],
    tmp_path: Path,
    attempt: Callable[..., bool],
) -> None:
    """A job requeued after its last checkpoint writes what was lost, on another number of ranks."""
    whole = whole_run(recipe)
    run_dir = shutil.copytree(whole, tmp_path / "run")
    path = run_dir / "mistakes.json"
    before = path.read_text()
    path.unlink()
    (run_dir / "results.json").unlink()
    assert attempt(run_dir, world_size=2)

    for key in ("weights_sha256", "confusion_matrix", "best", "steps"):
        assert results(run_dir)[key] == results(whole)[key]
    assert without_timings(run_dir) == without_timings(whole)

    def told(text: str) -> list[dict[str, Any]]:
        return json.loads(text)["mistakes"]

    assert told(path.read_text()) == told(before)
    confusion = np.array(results(run_dir)["confusion_matrix"])
    wrong = int(confusion.sum() - confusion.trace())
    assert len(told(before)) == min(wrong, GRID**2) > 0
    dataset = load_dataset(recipe.data, torch.device("cpu"))
    for each in told(before):
        png = base64.b64decode(each["png"])
        assert np.array_equal(pixels(png), dataset.test.images[each["index"]].numpy())
        assert each["true"] == dataset.classes[int(dataset.test.labels[each["index"]])]
        assert each["predicted"] != each["true"]
