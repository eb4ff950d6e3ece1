"""Run directories with a checkpoint that no training has made: quick, and no value at its start."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs import dump_recipe
from configs.continuation import shaping
from configs.schema import Data, Model, Recipe
from train import checkpoint, writers
from train.model import blank_model, build_model
from train.state import weights_sha256

LAYOUTS = {"mmcls": "model.pth", "torchvision": "model.pth", "safetensors": "model.safetensors"}
CLASSES = [f"kind {letter}" for letter in "abcdefghij"]


def make_recipe(stem: str = "imagenet") -> Recipe:
    return Recipe(
        data=Data(resolution=32, mean=[120.0, 110.5, 100.0], md5="none"), model=Model(stem=stem)
    )


def make_entries(recipe: Recipe, seed: int = 1) -> dict[str, Tensor]:
    """All 320 entries, those of the norms and the counters changed, too."""
    generator = torch.Generator().manual_seed(seed)
    entries = {}
    for name, value in initial_entries(recipe.model.stem).items():
        noise = torch.rand(value.shape if value.dim() == 1 else 1, generator=generator)
        if name.endswith("num_batches_tracked"):
            entries[name] = torch.full_like(value, 7)
        elif value.dim() == 1:
            entries[name] = 0.5 + noise if name.endswith(("weight", "var")) else noise - 0.5
        else:
            entries[name] = value * (0.5 + noise)
    return entries


@functools.cache
def initial_entries(stem: str) -> dict[str, Tensor]:
    """The entries of a model at its start, 25 million random numbers, made once."""
    return build_model(make_recipe(stem).model, seed=1).state_dict()


def add_checkpoint(
    run_dir: Path, recipe: Recipe, step: int, *, score: float | None = None, **changes: Any
) -> Path:
    """Write a checkpoint as training does; the file of its state."""
    last = {"accuracy_top-1": score, "accuracy_top-5": 99.0, "epoch": step // 10, "step": step}
    state = {
        "model": make_entries(recipe, seed=step),
        "optimizer": {},
        "step": step,
        "best": None,
        "last": last if score is not None else None,
        "ranks": {},
        "recipe": shaping(recipe),
        "epoch": step // 10,
        "classes": CLASSES,
    }
    folder = run_dir / "checkpoints"
    manifest = checkpoint.write(folder, state | changes, score=score, keep_last=9)
    return folder / manifest.file


def make_run(folder: Path, stem: str = "imagenet") -> Path:
    """A finished run below `folder`, with its only checkpoint."""
    recipe = make_recipe(stem)
    run_dir = folder / "finetune" / f"20260101-000000-{stem[:4]}"
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(dump_recipe(recipe))
    add_checkpoint(run_dir, recipe, 30, score=97.23)
    model = blank_model(recipe.model)
    model.load_state_dict(make_entries(recipe, seed=30))
    results = {"steps": 30, "classes": CLASSES, "weights_sha256": weights_sha256(model)}
    (run_dir / "results.json").write_text(json.dumps(results))
    (run_dir / "provenance.json").write_text(json.dumps({"commit": "0123abcd"}))
    return run_dir


def write_export(
    run_dir: Path, layout: str, folder: Path, *, best: bool = False
) -> tuple[Path, str]:
    """Export a run into a folder: the file, and what is told of it."""
    out = folder / LAYOUTS[layout]
    return out, writers.export(run_dir, layout, out, best=best)
