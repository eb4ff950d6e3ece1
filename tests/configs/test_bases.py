"""A recipe may begin from another one, its base, wherever that lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from configs import LoadedRecipe, RecipeError, load_recipe

Write = Callable[[str, str], Path]
Load = Callable[..., LoadedRecipe]
ProblemsOf = Callable[..., list[str]]


def test_a_recipe_wins_over_its_base_key_by_key(write: Write, load: Load) -> None:
    write("grandparent.yaml", "optimizer: {lr: 1, momentum: 0.5}\nschedule: {epochs: 3}\n")
    write("parent.yaml", "_base_: grandparent.yaml\noptimizer:\n  lr: 2\n  weight_decay: 0\n")

    loaded = load("_base_: parent.yaml\n\noptimizer:\n  weight_decay: 0.1\n")

    optimizer = loaded.recipe.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (2, 0.5, 0.1)
    assert loaded.origins == {
        "optimizer.lr": "configs/parent.yaml:3",
        "optimizer.momentum": "configs/grandparent.yaml:1",
        "optimizer.weight_decay": "configs/recipe.yaml:4",
        "schedule.epochs": "configs/grandparent.yaml:2",
    }
    assert [base.name for base in loaded.bases] == ["parent.yaml", "grandparent.yaml"]
    assert all(base.is_absolute() for base in loaded.bases)


def test_lists_are_replaced_and_mappings_merged(write: Write, load: Load) -> None:
    write(
        "base.yaml",
        "cluster: {setup: [a, b], env: {A: base, B: base}, sbatch: {comment: x}}\n",
    )

    text = "_base_: base.yaml\ncluster: {setup: [c], env: {B: mine, C: mine}, sbatch: {}}\n"
    loaded = load(text, "cluster.env.C=set", "cluster.env={D: set}")

    assert loaded.recipe.cluster.setup == ["c"]
    assert loaded.recipe.cluster.env == {"A": "base", "B": "mine", "C": "set", "D": "set"}
    assert loaded.recipe.cluster.sbatch == {"comment": "x"}
    assert loaded.origins["cluster.env.A"] == "configs/base.yaml:1"
    assert loaded.origins["cluster.env.B"] == "configs/recipe.yaml:2"
    assert loaded.origins["cluster.env.C"] == "--set"


def test_a_base_is_relative_to_the_file_that_includes_it(
    write: Write, load: Load, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "child.yaml").write_text("_base_: parent.yaml")
    (tmp_path / "shared" / "parent.yaml").write_text("run: {seed: 5}")

    loaded = load("_base_: ../shared/child.yaml")

    assert loaded.recipe.run.seed == 5
    assert loaded.origins == {"run.seed": "shared/parent.yaml:1"}


def test_files_that_include_each_other_are_told_as_a_chain(
    write: Write, problems_of: ProblemsOf
) -> None:
    write("a.yaml", "\n_base_: b.yaml")
    write("b.yaml", "_base_: ../configs/a.yaml")

    assert problems_of("_base_: a.yaml") == [
        "configs/b.yaml:1: _base_: these files include each other: configs/recipe.yaml -> "
        "configs/a.yaml -> configs/b.yaml -> configs/a.yaml"
    ]


def test_a_base_of_configs_is_found_by_its_name_from_anywhere(write: Write, tmp_path: Path) -> None:
    write("base.yaml", "optimizer: {lr: 0.5}")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "short.yaml").write_text("_base_: base.yaml\nschedule: {epochs: 2}")

    loaded = load_recipe("mine/short.yaml", folder=tmp_path / "configs")

    assert (loaded.recipe.optimizer.lr, loaded.recipe.schedule.epochs) == (0.5, 2)
    # One of that name beside the recipe is meant first.
    (mine / "base.yaml").write_text("optimizer: {lr: 0.25}")
    loaded = load_recipe("mine/short.yaml", folder=tmp_path / "configs")
    assert loaded.recipe.optimizer.lr == 0.25
    (mine / "short.yaml").write_text("_base_: bsae.yaml")
    with pytest.raises(RecipeError, match=r"mine/ has .*; configs/ has base\.yaml; did you mean"):
        load_recipe("mine/short.yaml", folder=tmp_path / "configs")


@pytest.mark.parametrize(
    ("base", "problem"),
    [
        (
            "bsae.yaml",
            "no such file; configs/ has base.yaml, recipe.yaml; did you mean 'base.yaml'?",
        ),
        ("[base.yaml]", 'expected the name of one file, got ["base.yaml"]'),
        ("null", "expected the name of one file, got null"),
    ],
)
def test_a_wrong_base_is_rejected(
    write: Write, problems_of: ProblemsOf, base: str, problem: str
) -> None:
    write("base.yaml", "{}")

    assert problems_of(f"_base_: {base}") == [f"configs/recipe.yaml:1: _base_: {problem}"]
