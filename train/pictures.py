"""Pictures of a run's end: the confusion matrix and the most confident mistakes."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from torch import Tensor

from train.evaluate import Scores

GRID = 5
# Beyond it a count is smaller than its cell's letters, and each would take 1.5 ms.
MOST_COUNTED_CLASSES = 30


def confusion_picture(counts: np.ndarray, classes: list[str]) -> np.ndarray:
    """The confusion matrix, coloured by share of the true class, with the counts written in.

    Of more than 30 classes only the colours, by the numbers of the classes.

    Args:
        counts: int64 (classes, classes), rows are true classes.
        classes: their names.

    Returns:
        uint8 (height, width, 3).
    """
    figure = Figure(figsize=(7, 6.5), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    is_named = len(classes) <= MOST_COUNTED_CLASSES
    for (row, column), count in np.ndenumerate(counts) if is_named else ():
        color = "white" if shares[row, column] > 0.5 else "black"
        # The figure's and not of the axes, which would clip each and measure it for the layout.
        figure.text(
            column, row, str(count), transform=axes.transData,
            ha="center", va="center", color=color, fontsize=8,
        )  # fmt: skip
    if is_named:
        # A name is no formula, whatever dollar signs it has.
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(len(classes)), classes, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return rendered(figure)


def mistakes_picture(scores: Scores, images: Tensor, classes: list[str]) -> np.ndarray:
    """The wrongly classified test images that the network was surest of, surest first.

    Args:
        scores: of an evaluation on `images`.
        images: uint8 (N, H, W, 3).
        classes: their names.

    Returns:
        uint8 (height, width, 3).
    """
    surest = surest_mistakes(scores)
    figure = Figure(figsize=(8, 8.8))
    # One pair of axes, for each pair draws its own ticks: 25 of them take four times as long.
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    high = 0.8 * 8 / 8.8  # so that they are square
    if not surest:
        axes.text(GRID / 2, GRID / 2, "no mistakes", ha="center", fontsize=12)
    for place, index in enumerate(surest):
        top, left = divmod(place, GRID)
        box = (left + 0.1, left + 0.9, top + 0.98, top + 0.98 - high)
        axes.imshow(images[index].cpu().numpy(), extent=box, aspect="auto")
        label, prediction = (classes[int(x[index])] for x in (scores.labels, scores.predictions))
        confidence = 100 * float(scores.confidences[index])
        told = f"{label}\nas {prediction}, {confidence:.0f} %"
        axes.text(
            left + 0.5, top + 0.95 - high, told,
            ha="center", va="bottom", fontsize=8, parse_math=False,
        )  # fmt: skip
    # Last, for each picture sets the limits to its own.
    axes.set(xlim=(0, GRID), ylim=(GRID, 0))
    return rendered(figure)


def mistakes_table(scores: Scores, images: Tensor, classes: list[str]) -> list[dict[str, object]]:
    """The same mistakes with their pictures, for mistakes.json.

    Args:
        scores: of an evaluation on `images`.
        images: uint8 (N, H, W, 3).
        classes: their names.

    Returns:
        surest first: `index` in the test set, the names of the `true` and the `predicted` class,
        the `confidence` from 0 to 1, and the image as a PNG in base64.
    """
    return [
        {
            "index": index,
            "true": classes[int(scores.labels[index])],
            "predicted": classes[int(scores.predictions[index])],
            "confidence": float(scores.confidences[index]),
            "png": png(images[index]),
        }
        for index in surest_mistakes(scores)
    ]


def surest_mistakes(scores: Scores) -> list[int]:
    """The places of the wrongly classified images, at most a grid full, surest first."""
    wrong = (scores.predictions != scores.labels).nonzero().flatten()
    order = scores.confidences[wrong].argsort(descending=True, stable=True)
    places: list[int] = wrong[order][: GRID**2].tolist()
    return places


def png(image: Tensor) -> str:
    """An image, uint8 (H, W, 3), as a PNG in base64."""
    encoded = io.BytesIO()
    # Without its own version matplotlib writes the same bytes for the same pixels.
    imsave(encoded, image.cpu().numpy(), format="png", metadata={"Software": None})
    return base64.b64encode(encoded.getvalue()).decode("ascii")


def rendered(figure: Figure) -> np.ndarray:
    """The pixels of `figure`: uint8 (height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
