"""Whatever a recipe's paths say, files are written into the bundle alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from configs import load_recipe
from configs.loader import FOLDER
from jobs import stage
from jobs.errors import RequestError
from jobs.target import Target

TARGET = Target("3.11", 28, "x86_64", "cuda")


@pytest.mark.parametrize(
    "override", ["model.weights=../shared/w.pth", "model.weights=weights/../../w.pth"]
)
def test_a_path_that_leads_out_of_the_project_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(RequestError, match=r"model.weights is .*w.pth, outside of the project"):
        stage.stage(
            tmp_path / "bundle", load_recipe("finetune.yaml", [override]), [override], TARGET, []
        )

    assert not (tmp_path / "bundle").exists()


def test_a_path_of_this_machine_is_carried_as_one_of_the_project() -> None:
    overrides = [f"model.weights={FOLDER.parent}/weights/a b.pth", "data.root=data/cifar10"]
    loaded = load_recipe("finetune.yaml", overrides)

    arguments = stage._recipe_arguments(loaded, overrides, [Path("configs/finetune.yaml")])

    assert arguments[-2:] == ["--set", 'model.weights="weights/a b.pth"']
    assert len(arguments) == 2 + 2 * 3
    elsewhere = load_recipe("finetune.yaml", [arguments[-1]])
    assert elsewhere.recipe.model.weights == f"{FOLDER.parent}/weights/a b.pth"


def test_a_recipe_whose_base_is_not_carried_is_refused() -> None:
    base = FOLDER / ".." / "experiments" / "base.yaml"
    loaded = replace(load_recipe("finetune.yaml", []), bases=(base,))

    with pytest.raises(RequestError, match=r"base.yaml is not among the project's files"):
        stage._recipe_arguments(loaded, [], [Path("configs/finetune.yaml")])
