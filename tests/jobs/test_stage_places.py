"""Whatever a recipe's paths say, files are written into the bundle alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs import load_recipe
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
