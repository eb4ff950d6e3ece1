"""The facts of a model: what its user needs beside the tensors, and where it comes from.

A checkpoint of a run has them in its state, an export under `KEY` in mmcls's meta or as metadata in
safetensors; the bare torchvision layout has no place for any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.schema import Data, Model
from train.containers import Checkpoint
from train.errors import RequestError
from train.layouts import OURS

KEY = "slurm_finetune"
NEEDED = {
    "classes": "the names of its classes: --classes a,b,c in the order of its outputs",
    "resolution": "the side in pixels that it was trained at: --resolution 224, say",
}
# In safetensors, whose metadata are texts, these are JSON.
DECODED = ("classes", "resolution", "mean", "std")


@dataclass(frozen=True)
class Usage:
    """How images become a model's input, and what its outputs mean.

    `classes`: their names, in the order of the outputs. `data`, `model`: sections of a recipe, of
    which resolution, mean and std, stem and num_classes are set.
    """

    classes: list[str]
    data: Data
    model: Model


def gather(run_dir: Path, state: Mapping[str, Any], weights_sha256: str) -> dict[str, Any]:
    """The facts of the model in `state`, a checkpoint of the run in `run_dir`.

    What is not known, such as the scores of a step that was not evaluated, is left out.
    """
    evaluated = state["last"] if (state["last"] or {}).get("step") == state["step"] else {}
    found = of_a_run(state) | {
        "classes": state.get("classes") or classes_in_results(run_dir),
        "step": state["step"],
        "epoch": state.get("epoch", evaluated.get("epoch")),
        "accuracy_top-1": evaluated.get("accuracy_top-1"),
        "accuracy_top-5": evaluated.get("accuracy_top-5"),
        "weights_sha256": weights_sha256,
        "run": "/".join(run_dir.resolve().parts[-2:]),
        "commit": read_json(run_dir / "provenance.json").get("commit"),
    }
    return {key: value for key, value in found.items() if value is not None}


def of_a_run(state: Mapping[Any, Any]) -> dict[str, Any]:
    """What the state of a run's checkpoint says of how its model is used."""
    recipe = state.get("recipe")
    recipe = recipe if isinstance(recipe, Mapping) else {}
    keys = {f"data.{key}": key for key in ("resolution", "mean", "std")} | {"model.stem": "stem"}
    found = {key: recipe.get(source) for source, key in keys.items()}
    return found | {"classes": state.get("classes")}


def classes_in_results(run_dir: Path) -> list[str] | None:
    """The class names in results.json, for a checkpoint that is older than its having them."""
    return read_json(run_dir / "results.json").get("classes")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def as_strings(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts as safetensors' metadata: texts as they are, anything else as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in facts.items()
    }


def from_strings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The facts in safetensors' metadata.

    Raises:
        RequestError: one is not as `as_strings` writes it.
    """
    found: dict[str, Any] = dict(metadata)
    for key in DECODED:
        if key in found:
            try:
                found[key] = json.loads(found[key])
            except (ValueError, RecursionError):
                raise RequestError(f"its metadata {key!r} is no JSON") from None
    return found


def in_file(checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    """What a checkpoint file itself says of how its model is used.

    Of mmcls's and mmpretrain's own files, that is the names of the classes.

    Args:
        checkpoint: its content.
        path: where it is; a run's checkpoint has the run directory above it.

    Raises:
        RequestError: its metadata are damaged.
    """
    meta = checkpoint.content.get("meta")
    if checkpoint.content.keys() >= OURS:
        found = of_a_run(checkpoint.content)
        run_dir = path.absolute().parent.parent
        found["classes"] = _names(found["classes"]) or classes_in_results(run_dir)
    elif isinstance(meta, Mapping):
        about_data = meta.get("dataset_meta")
        classes = about_data.get("classes") if isinstance(about_data, Mapping) else None
        own = meta.get(KEY)
        found = {"classes": _names(classes) or _names(meta.get("CLASSES"))}
        found |= own if isinstance(own, Mapping) else {}
    else:
        found = from_strings(checkpoint.metadata)
    known = ("classes", "stem", "resolution", "mean", "std")
    return {key: found[key] for key in known if found.get(key) is not None}


def _names(value: object) -> list[Any] | tuple[Any, ...] | None:
    """A list of the file's, else None; a tensor, say, cannot even be asked whether it is empty."""
    return value if isinstance(value, list | tuple) and value else None


def usage(said: Mapping[str, Any], given: Mapping[str, Any]) -> Usage:
    """How the model in a file is used, from what this says itself and what is `given`.

    Raises:
        RequestError: something is in neither or in both, or cannot be.
    """
    for key in given:
        if key in said:
            raise RequestError(f"it says its {key} itself: leave --{key} out")
    found = {**said, **given}
    for key, remedy in NEEDED.items():
        if key not in found:
            raise RequestError(f"it does not say {remedy}")
    classes = list(found["classes"]) if isinstance(found["classes"], list | tuple) else []
    if not all(isinstance(name, str) and name for name in classes):
        raise RequestError("its classes are no list of names")
    try:
        data = Data(**{key: found[key] for key in ("resolution", "mean", "std") if key in found})
        model = Model(num_classes=len(classes), stem=found["stem"])
    except ValidationError as error:
        first = error.errors()[0]
        key = "classes" if first["loc"][0] == "num_classes" else str(first["loc"][0])
        place = f"--{key}" if key in given else f"its {key}"
        raise RequestError(f"{place}: {first['msg']}") from None
    return Usage(classes, data, model)
