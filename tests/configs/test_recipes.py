"""The recipes that come with the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs import load_recipe
from configs.loader import FOLDER

RECIPES = sorted(path.name for path in FOLDER.glob("*.yaml") if not path.name.startswith("site."))
WEIGHTS = "weights/resnet50_8xb32_in1k_20210831-ea4938fc.pth"
CIFAR10_MEAN = [125.307, 122.961, 113.8575]
CIFAR10_STD = [51.5865, 50.847, 51.255]


def settings_of(name: str, tmp_path: Path) -> dict[str, object]:
    """Every key that a recipe of ours sets, without this machine's site and folders."""
    (tmp_path / "configs").mkdir()
    loaded = load_recipe(str(FOLDER / name), folder=tmp_path / "configs")
    sections = loaded.recipe.model_dump()
    settings = {}
    for origin in loaded.origins:
        section, key = origin.split(".")
        value = sections[section][key]
        settings[origin] = value.removeprefix(f"{tmp_path}/") if isinstance(value, str) else value
    return settings


def test_the_recipes_are_those_that_the_documentation_names() -> None:
    assert RECIPES == [
        "finetune.yaml",
        "finetune_fast.yaml",
        "quickstart.yaml",
        "scratch.yaml",
        "scratch_fast.yaml",
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_loads_and_its_header_gives_its_command(name: str, tmp_path: Path) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")

    assert settings_of(name, tmp_path)
    assert f"\n#     python launch.py --config {name}\n" in text


def test_finetune_is_the_notes_recipe_setting_for_setting(tmp_path: Path) -> None:
    assert settings_of("finetune.yaml", tmp_path) == {
        "cluster.nodes": 1,
        "cluster.gpus_per_node": 1,
        "data.root": "data/cifar10",
        "data.md5": "official",
        "data.crop_padding": 4,
        "data.flip": 0.5,
        "data.resolution": 224,
        "data.mean": CIFAR10_MEAN,
        "data.std": CIFAR10_STD,
        "model.stem": "imagenet",
        "model.num_classes": 10,
        "model.weights": WEIGHTS,
        "optimizer.lr": 0.0025,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 0.0001,
        "optimizer.nesterov": False,
        "schedule.epochs": 20,
        "schedule.kind": "step",
        "schedule.milestones": [15],
        "schedule.gamma": 0.1,
        "schedule.warmup_steps": 0,
        "train.batch_size": 32,
        "train.micro_batch_size": None,
        "train.label_smoothing": 0.1,
        "train.precision": "auto",
        "evaluate.every_epochs": 1,
        "checkpoint.every_epochs": 1,
        "logging.every_steps": 100,
    }


def test_scratch_is_the_stock_recipe_setting_for_setting(tmp_path: Path) -> None:
    assert settings_of("scratch.yaml", tmp_path) == {
        "data.root": "data/cifar10",
        "data.md5": "official",
        "data.crop_padding": 4,
        "data.flip": 0.5,
        "data.resolution": 32,
        "data.mean": CIFAR10_MEAN,
        "data.std": CIFAR10_STD,
        "model.stem": "cifar",
        "model.num_classes": 10,
        "model.weights": None,
        "model.zero_init_residual": True,
        "optimizer.lr": 0.1,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 0.0001,
        "optimizer.nesterov": False,
        "schedule.epochs": 200,
        "schedule.kind": "step",
        "schedule.milestones": [100, 150],
        "schedule.gamma": 0.1,
        "schedule.warmup_steps": 0,
        "train.batch_size": 128,
        "train.micro_batch_size": 16,
        "train.label_smoothing": 0.0,
        "train.precision": "auto",
        "evaluate.every_epochs": 1,
        "checkpoint.every_epochs": 1,
        "logging.every_steps": 100,
    }


@pytest.mark.parametrize("name", ["finetune.yaml", "scratch.yaml"])
def test_published_recipes_decay_all_and_have_neither_average_nor_tail(
    name: str, tmp_path: Path
) -> None:
    """They set none of these keys, and so train as before there were any."""
    recipe = load_recipe(str(FOLDER / name), folder=tmp_path).recipe

    assert recipe.optimizer.decay_norms_and_biases
    assert recipe.train.ema_half_life is None
    assert recipe.schedule.fixres_tail == 0


def test_quickstart_needs_no_download_no_gpu_and_no_slurm(tmp_path: Path) -> None:
    settings = settings_of("quickstart.yaml", tmp_path)

    assert settings["cluster.engine"] == "local"
    assert settings["cluster.gpus_per_node"] == "all"
    assert settings["data.source"] == "digits"
    assert settings["model.weights"] is None


def test_the_site_example_sets_nothing_until_a_line_is_uncommented(tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    example = (FOLDER / "site.example.yaml").read_text(encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text("{}")
    (folder / "site.yaml").write_text(example, encoding="utf-8")

    assert load_recipe(str(recipe), folder=folder).origins == {}


def test_the_site_example_is_right_and_complete_once_uncommented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key of `cluster` is there, with a value that the schema takes."""
    monkeypatch.setenv("SCRATCH", "/scratch")
    folder = tmp_path / "configs"
    folder.mkdir()
    example = (FOLDER / "site.example.yaml").read_text(encoding="utf-8")
    settings = "\n" + example.partition("\n\n")[2]
    recipe = folder / "recipe.yaml"
    recipe.write_text("{}")
    (folder / "site.yaml").write_text(settings.replace("\n# ", "\n").replace("\n#\n", "\n\n"))

    loaded = load_recipe(str(recipe), folder=folder)

    keys = {".".join(origin.split(".")[:2]) for origin in loaded.origins}
    cluster = {f"cluster.{key}" for key in type(loaded.recipe.cluster).model_fields}
    assert keys == cluster | {"run.root"}
    assert loaded.recipe.run.root == "/scratch/slurm-finetune"
