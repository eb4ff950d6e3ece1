"""Both ways to make a batch are timed up to the same stage and make the same kind of tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks import ours
from benchmarks.data_path import Batched, loader

SMALL = ("--batch-size", "4", "--rounds", "2", "--calls", "1", "--workers", "1")


def test_every_stage_of_every_size_is_timed_on_both_ways(measure: Callable[..., Any]) -> None:
    printed, found = measure("data_path", *SMALL, "--resolutions", "32", "48")

    assert [(each["resolution"], each["stage"]) for each in found["results"]] == [
        (32, "uint8"),
        (32, "float32"),
        (48, "uint8"),
        (48, "float32"),
    ]
    for result in found["results"]:
        assert list(result["paths"]) == ["batched", "Pillow", "Pillow, 1 processes"]
        for row in result["paths"].values():
            assert 0 < row["least_us"] <= row["median_us"]
            middle, least, most = row["times_batched"]
            assert 0 < least <= middle <= most
            assert f"{middle:.1f} ({least:.1f} to {most:.1f})" in printed
    assert found["threads"] == 1
    paths = {each["stage"]: each["paths"] for each in found["results"][2:]}
    times = paths["float32"]["Pillow"]["median_us"] / paths["uint8"]["batched"]["median_us"]
    assert found["pillow_float32_over_batched_uint8"]["48"] == round(times, 1)


def test_both_ways_make_the_same_kind_of_batch() -> None:
    recipe = ours.make_recipe("finetune.yaml", ["train.batch_size=4", "train.device=cpu"], None)
    with ours.our_step(recipe) as step:
        batches = step.session.batches

    for stage, dtype in (("uint8", torch.uint8), ("float32", torch.float32)):
        mine = Batched(batches, 48, stage)()
        theirs, _ = next(iter(loader(batches.split, 48, 4, stage, 0)))
        assert mine.shape == theirs.shape == (4, 3, 48, 48)
        assert mine.dtype == theirs.dtype == dtype
