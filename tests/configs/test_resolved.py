"""config.yaml: what is dumped is complete and reads back equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs import (
    LoadedRecipe,
    Recipe,
    RecipeError,
    change_resolved,
    dump_recipe,
    explain,
    read_resolved,
)

Load = Callable[..., LoadedRecipe]


def recipe_with(**sections: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(sections)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        *(
            recipe_with(run={"notes": notes})
            for notes in ("no", "1e-3", "12:00:00", "null", "", "é 😀", "two\nlines", "a: b # c")
        ),
        recipe_with(optimizer={"lr": 1e-4, "weight_decay": 1e-5}),
        recipe_with(optimizer={"lr": 1 / 3, "weight_decay": 1e300}),
        recipe_with(cluster={"gpus_per_node": "all", "time_limit": "12:00:00", "partition": "on"}),
        recipe_with(
            cluster={
                "setup": ["module load cuda", "", "export A='b, c'"],
                "env": {"NO": "no", "N": "4", "": ""},
                "sbatch": {"comment": "1", "nice": 1, "exclusive": True, "ratio": 1.0},
            }
        ),
        recipe_with(schedule={"milestones": [1, 20]}, model={"weights": "/a b/$c~.pth"}),
    ],
)
def test_a_dumped_recipe_reads_back_equal(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")

    read = read_resolved(path)

    assert read == recipe
    # 1, 1.0 and True are equal, and not the same to sbatch.
    assert repr(read) == repr(recipe)


def test_a_dump_has_every_key_in_the_schemas_order() -> None:
    text = dump_recipe(Recipe())

    positions = [text.index(f"\n  {key}: ", text.index(f"{name}:\n")) for name, key in explain.KEYS]
    assert positions == sorted(positions)


def test_a_loaded_recipe_reads_back_equal_anywhere(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker looks at neither the site nor the environment nor the working directory."""
    monkeypatch.setenv("SCRATCH", "/scratch/$HOME")
    recipe = load("run: {root: $SCRATCH}\nmodel: {weights: w.pth}\n").recipe
    path = tmp_path / "config.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    (tmp_path / "configs/site.yaml").write_text("cluster: {nodes: 9}")
    monkeypatch.chdir("/")

    assert read_resolved(path) == recipe


def test_only_what_is_changed_of_a_resolved_recipe_is_expanded(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/$HOME")
    recipe = load("run: {root: $SCRATCH}\ndata: {root: /$$DATA}\ncluster: {nodes: 2}\n").recipe
    path = tmp_path / "config.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    (tmp_path / "configs/site.yaml").write_text("cluster: {env: {A: b}}")
    overrides = ["model.weights=$SCRATCH/$$w.pth", "run.seed=7"]

    changed = change_resolved(path, overrides)

    assert changed.recipe == recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"weights": "/scratch/$HOME/$w.pth"}),
            "run": recipe.run.model_copy(update={"seed": 7}),
        }
    )
    assert changed.origins["run.seed"] == "--set"
    relative = change_resolved(path, ["data.root=data"], project=tmp_path)
    assert relative.recipe.data.root == str(tmp_path / "data")


def test_a_resolved_recipe_is_read_as_strictly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("_base_: x.yaml\nrun: {seed: 1, seeds: 1}\ndata: {flip: yes}\n")

    with pytest.raises(RecipeError) as caught:
        read_resolved(Path("config.yaml"))

    assert caught.value.problems == [
        "config.yaml:1: _base_: unknown section; the sections are run, cluster, data, model, "
        "optimizer, schedule, train, evaluate, checkpoint, logging",
        "config.yaml:2: run.seeds: unknown key; did you mean 'run.seed'?",
        "config.yaml:3: data.flip: expected a number from 0 to 1, got 'yes' "
        "(probability of a horizontal flip)",
    ]


def test_a_missing_config_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(RecipeError) as caught:
        read_resolved(Path("config.yaml"))

    assert caught.value.problems == ["config.yaml: cannot be read: No such file or directory"]
