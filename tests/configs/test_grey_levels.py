"""Mean and deviation of images from 0 to 1 are not taken for grey levels."""

from __future__ import annotations

from collections.abc import Callable

import pytest

ProblemsOf = Callable[..., list[str]]
ON_SHARES = "[0.4914, 0.4822, 0.4465]"


def test_mean_and_deviation_of_images_from_0_to_1_are_refused(problems_of: ProblemsOf) -> None:
    std = "[0.2023, 0.1994, 0.201]"

    assert problems_of("run: {}", f"data.mean={ON_SHARES}", f"data.std={std}") == [
        f"--set data.std: this and data.mean {ON_SHARES} are of images from 0 to 1, and "
        f"these are from 0 to 255: multiply both by 255; got {std}"
    ]


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ("[0, 0, 0]", "[1, 1, 1]"),  # grey levels as they are
        ("[0, 0, 0]", "[0.5, 0.5, 0.5]"),
        (ON_SHARES, "[20.0, 21.0, 22.0]"),  # of next to black images
        ("[125.3, 123.0, 113.9]", "[0.5, 0.5, 0.5]"),
    ],
)
def test_other_values_are_what_they_say(load: Callable[..., object], mean: str, std: str) -> None:
    assert load("run: {}", f"data.mean={mean}", f"data.std={std}")
