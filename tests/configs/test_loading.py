"""A recipe is found, merged layer by layer, and comes out complete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from configs import LoadedRecipe, Recipe, RecipeError, load_recipe

Write = Callable[[str, str], Path]
Load = Callable[..., LoadedRecipe]
ProblemsOf = Callable[..., list[str]]


def problems_with(recipe: str, folder: Path) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, folder=folder)
    return caught.value.problems


def test_a_recipe_that_sets_nothing_is_the_schema_with_absolute_paths(
    load: Load, tmp_path: Path
) -> None:
    loaded = load("{}")

    expected = Recipe().model_dump()
    expected["run"] |= {"name": "recipe", "root": f"{tmp_path}/logs"}
    expected["data"]["root"] = f"{tmp_path}/data/cifar10"
    assert loaded.recipe.model_dump() == expected
    assert loaded.origins == {}
    assert loaded.path == tmp_path / "configs" / "recipe.yaml"


def test_an_empty_section_sets_nothing(load: Load) -> None:
    assert load("cluster:\n  # nodes: 2\ntrain:\n").recipe == load("{}").recipe


@pytest.mark.parametrize("name", ["recipe", "recipe.yaml", "configs/recipe.yaml"])
def test_a_recipe_is_found_by_name_or_path(write: Write, tmp_path: Path, name: str) -> None:
    write("recipe.yaml", "run: {seed: 7}")

    loaded = load_recipe(name, folder=tmp_path / "configs")

    assert loaded.recipe.run.seed == 7
    assert loaded.origins == {"run.seed": "configs/recipe.yaml:1"}


def test_a_file_here_wins_over_one_of_its_name_in_configs(write: Write, tmp_path: Path) -> None:
    write("recipe.yaml", "run: {seed: 7}")
    (tmp_path / "recipe.yaml").write_text("run: {seed: 8}")

    assert load_recipe("recipe.yaml", folder=tmp_path / "configs").recipe.run.seed == 8


def test_a_folder_here_does_not_hide_a_recipe_of_its_name(write: Write, tmp_path: Path) -> None:
    write("recipe.yaml", "run: {seed: 7}")
    (tmp_path / "recipe").mkdir()

    assert load_recipe("recipe", folder=tmp_path / "configs").recipe.run.seed == 7


def test_a_missing_recipe_is_told_with_those_there_are(write: Write, tmp_path: Path) -> None:
    write("finetune.yaml", "{}")
    write("scratch.yaml", "{}")
    write("site.yaml", "")

    assert problems_with("fintune.yaml", tmp_path / "configs") == [
        "fintune.yaml: no such file; configs/ has finetune.yaml, scratch.yaml; "
        "did you mean 'finetune.yaml'?"
    ]
    assert problems_with("elsewhere/quick", tmp_path / "configs") == [
        "elsewhere/quick: no such file; configs/ has finetune.yaml, scratch.yaml"
    ]


def test_a_file_that_is_no_recipe_is_rejected(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    write("empty.yaml", "# nothing\n")
    write("list.yaml", "- optimizer\n")
    write("broken.yaml", "run:\n  seed: 1\n notes: x\n")
    (folder / "latin.yaml").write_bytes(b"run: {notes: \xe9}")

    assert problems_with("configs", folder) == ["configs: is a folder"]
    assert problems_with("empty", folder) == ["configs/empty.yaml: is empty"]
    assert problems_with("list", folder) == [
        "configs/list.yaml: expected sections such as 'optimizer:' with 'lr: 0.1' below, "
        'got ["optimizer"]'
    ]
    assert problems_with("latin", folder) == [
        "configs/latin.yaml: is not UTF-8 text, from byte 13 on"
    ]
    assert problems_with("broken", folder) == [
        "configs/broken.yaml:3:2: not valid YAML: while parsing a block mapping from line 1, "
        "expected <block end>, but found '<block mapping start>'"
    ]


def test_a_name_that_the_file_system_refuses_is_told(tmp_path: Path) -> None:
    name = f"{'x' * 300}/recipe.yaml"

    assert problems_with(name, tmp_path) == [f"{name}: cannot be read: File name too long"]


def test_the_site_gives_defaults_below_the_recipe(write: Write, load: Load) -> None:
    write("site.yaml", "run: {root: /shared/runs}\ncluster:\n  partition: gpu\n  nodes: 2\n")

    loaded = load("cluster: {nodes: 1}")

    assert (loaded.recipe.cluster.partition, loaded.recipe.cluster.nodes) == ("gpu", 1)
    assert loaded.recipe.run.root == "/shared/runs"
    assert loaded.origins == {
        "run.root": "configs/site.yaml:1",
        "cluster.partition": "configs/site.yaml:3",
        "cluster.nodes": "configs/recipe.yaml:1",
    }


def test_a_site_sets_nothing_but_the_cluster_and_where_runs_go(
    write: Write, problems_of: ProblemsOf
) -> None:
    write("site.yaml", "run:\n  seed: 1\noptimizer:\n  lr: 1\n_base_: base.yaml\n")

    assert problems_of("{}") == [
        f"configs/site.yaml:{line}: {key}: a site sets only cluster.* and run.root"
        for line, key in ((2, "run.seed"), (4, "optimizer.lr"), (5, "_base_"))
    ]


def test_an_empty_site_sets_nothing(write: Write, load: Load) -> None:
    write("site.yaml", "# cluster:\n")

    assert load("{}").origins == {}


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimizer.lr=1e-3", 0.001),
        ("optimizer.lr=1", 1.0),
        ("cluster.time_limit=12:00:00", "12:00:00"),
        ("model.weights=null", None),
        ("schedule.milestones=[1,2]", [1, 2]),
        ("run.notes=a=b", "a=b"),
        ("run.notes=", ""),
        ("run.notes='1e-3'", "1e-3"),
        ("run.notes=no", "no"),
        ("cluster.gpus_per_node=all", "all"),
        ("cluster.gpus_per_node=8", 8),
        ("optimizer.nesterov=true", True),
    ],
)
def test_an_override_is_read_as_yaml(load: Load, override: str, value: object) -> None:
    section, key = override.partition("=")[0].split(".")

    loaded = load("model: {weights: x.pth}", override)

    assert getattr(getattr(loaded.recipe, section), key) == value
    assert loaded.origins[f"{section}.{key}"] == "--set"


def test_the_last_override_wins(load: Load) -> None:
    assert load("{}", "run.seed=1", "run.seed=2").recipe.run.seed == 2


def test_a_run_is_named_after_its_recipe_unless_it_has_a_name(load: Load) -> None:
    assert load("{}").recipe.run.name == "recipe"
    assert load("run: {name: mine}").recipe.run.name == "mine"
    assert load("run: {name: mine}", "run.name=").recipe.run.name == "recipe"


def test_a_file_whose_name_cannot_name_a_run_is_told(write: Write, tmp_path: Path) -> None:
    write("my recipe.yaml", "{}")

    assert problems_with("my recipe", tmp_path / "configs") == [
        "configs/my recipe.yaml: run.name: use letters, digits, '.', '_' and '-' only, "
        "a letter or digit first; got 'my recipe'"
    ]


@pytest.mark.parametrize("key", ["run.root", "data.root", "model.weights"])
def test_paths_start_at_the_project_and_know_variables(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Whatever the working directory is, so config.yaml means the same on every node."""
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.chdir("/")
    section, name = key.split(".")

    def resolved(path: str) -> object:
        recipe = load_recipe(
            str(tmp_path / "configs/recipe.yaml"),
            [f"{key}={path}"],
            folder=tmp_path / "configs",
        ).recipe
        return getattr(getattr(recipe, section), name)

    load("{}")
    assert resolved("a/b") == f"{tmp_path}/a/b"
    assert resolved("/a/b") == "/a/b"
    assert resolved("~/a") == "/home/ada/a"
    assert resolved("$SCRATCH/a") == "/scratch/a"
    assert resolved("${SCRATCH}1/a") == "/scratch1/a"
    assert resolved("$$5/a") == f"{tmp_path}/$5/a"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("$NOWHERE/a", "the variable NOWHERE is not set, or empty"),
        ("$EMPTY/a", "the variable EMPTY is not set, or empty"),
        ("a$/b", "write $NAME for a variable, $$ for the character '$'"),
        ("~nobody-by-this-name/a", "'~' leads to nobody's home folder"),
    ],
)
def test_a_path_that_leads_nowhere_is_rejected(
    problems_of: ProblemsOf, monkeypatch: pytest.MonkeyPatch, path: str, problem: str
) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.setenv("EMPTY", "")

    assert problems_of(f"data:\n  root: {path}\n") == [
        f"configs/recipe.yaml:2: data.root: {problem}; got '{path}'"
    ]
