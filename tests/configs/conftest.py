"""A project of its own for each test: `configs/` in an empty working directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from configs import LoadedRecipe, RecipeError, load_recipe


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Returns a function that writes a file in the project's `configs/`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / "configs" / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def load(write: Callable[[str, str], Path], tmp_path: Path) -> Callable[..., LoadedRecipe]:
    """Returns a function that writes its text as recipe.yaml and loads that with overrides."""

    def load_text(text: str, *overrides: str) -> LoadedRecipe:
        write("recipe.yaml", text)
        return load_recipe("recipe.yaml", overrides, folder=tmp_path / "configs")

    return load_text


@pytest.fixture
def problems_of(load: Callable[..., LoadedRecipe]) -> Callable[..., list[str]]:
    """Returns a function like `load` that returns the problems instead."""

    def load_and_fail(text: str, *overrides: str) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides)
        return caught.value.problems

    return load_and_fail
