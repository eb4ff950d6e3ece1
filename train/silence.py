"""The journal of a rank that keeps none: what train.journal's has, without the imports for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.cache import Dataset
    from train.evaluate import Scores


class Silence:
    """The journal of a rank that keeps none."""

    def say(self, text: str) -> None:
        """Nothing."""

    def write(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def finish(self, results: dict[str, Any], scores: Scores, dataset: Dataset) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
