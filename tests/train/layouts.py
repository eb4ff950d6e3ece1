"""One network's entries as each framework saves them: name, content, and what must be told."""

from __future__ import annotations

import argparse
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

Entries = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How a file is made of a network's `entries` and of `others`, a second set of weights.

    `loaded`: entries of 320 that a model of the same classes takes. `ignored`: names among those
    that are told as such.
    """

    name: str
    make: Callable[[Entries, Entries], Any]
    wrapping: list[str] = field(default_factory=list)
    container: str = "zip"
    loaded: int = 320
    ignored: tuple[str, ...] = ()
    metadata: dict[str, str] | None = None


def save(content: Any, path: Path, layout: Layout) -> None:
    """Write `content` in the layout's container, whatever the name of the file."""
    if layout.container == "safetensors":
        contiguous = {name: value.contiguous() for name, value in content.items()}
        safetensors.torch.save_file(contiguous, path, metadata=layout.metadata)
    else:
        is_zip = layout.container == "zip"
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)


def prefixed(prefix: str, entries: Entries) -> Entries:
    return {prefix + name: value for name, value in entries.items()}


def mmcls(entries: Entries) -> Entries:
    return OrderedDict(
        (f"head.{name}" if name.startswith("fc.") else f"backbone.{name}", value)
        for name, value in entries.items()
    )


def transformers(entries: Entries) -> Entries:
    def renamed(name: str) -> str:
        match name.split("."):
            case ["fc", last]:
                return f"classifier.1.{last}"
            case ["conv1", last]:
                return f"resnet.embedder.embedder.convolution.{last}"
            case ["bn1", last]:
                return f"resnet.embedder.embedder.normalization.{last}"
            case [layer, block, "downsample", number, last]:
                kind = ("convolution", "normalization")[int(number)]
                place = f"shortcut.{kind}"
            case [layer, block, module, last]:
                kind = "convolution" if module.startswith("conv") else "normalization"
                place = f"layer.{int(module[-1]) - 1}.{kind}"
        stage = int(layer.removeprefix("layer")) - 1
        return f"resnet.encoder.stages.{stage}.layers.{block}.{place}.{last}"

    return {renamed(name): value for name, value in entries.items()}


def without_head(entries: Entries) -> Entries:
    return {name: value for name, value in entries.items() if not name.startswith("fc.")}


def ema_names(entries: Entries) -> Entries:
    """As mmcv's hook calls the buffers that it adds."""
    return {f"ema_{name.replace('.', '_')}": value for name, value in entries.items()}


@contextmanager
def mmengine() -> Iterator[type]:
    """MMEngine's class of logged values, under its name, for as long as something is pickled."""
    module = types.ModuleType("mmengine.logging.history_buffer")
    history = type("HistoryBuffer", (), {"__module__": module.__name__})
    module.HistoryBuffer = history
    names = ("mmengine", "mmengine.logging", module.__name__)
    sys.modules |= dict.fromkeys(names, module)
    try:
        yield history
    finally:
        for name in names:
            del sys.modules[name]


def mmpretrain(entries: Entries, others: Entries) -> Any:
    """As MMEngine saves a training; `mmengine` must be open when it is pickled."""
    history = sys.modules["mmengine.logging.history_buffer"].HistoryBuffer()
    history.__dict__ = {"_log_history": np.arange(3.0), "_max_length": 10, "best": np.float64(1)}
    sides = {"data_preprocessor.mean": torch.ones(3), "neck.gap.scale": torch.ones(1)}
    return {
        "meta": {"mmengine_version": "0.10.7", "dataset_meta": {"classes": ["a"] * 10}, "epoch": 3},
        "state_dict": mmcls(entries) | sides,
        "ema_state_dict": prefixed("module.", mmcls(others)) | {"steps": torch.tensor(3)},
        "message_hub": {"log_scalars": {"train/loss": history}},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}},
    }


def of_timm(entries: Entries, others: Entries) -> Any:
    return {
        "epoch": 4,
        "arch": "resnet50",
        "state_dict": others,
        "state_dict_ema": entries,
        "args": argparse.Namespace(lr=0.1, model="resnet50"),
        "version": 2,
    }


def of_torchvision(entries: Entries, others: Entries) -> Any:
    return {
        "model": others,
        "model_ema": prefixed("module.", entries) | {"n_averaged": torch.tensor(5)},
        "optimizer": {"param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(epochs=90),
        "epoch": 3,
    }


LAYOUTS = {
    "torchvision": Layout("torchvision", lambda e, _: e),
    "torchvision, older container": Layout("torchvision", lambda e, _: e, container="legacy"),
    "torchvision's training script, averaged": Layout(
        "torchvision",
        of_torchvision,
        ["model_ema", "module."],
        ignored=("model", "optimizer", "args", "epoch", "n_averaged"),
    ),
    "mmcls 0.x, published": Layout(
        "mmcls",
        lambda e, _: {"meta": {"mmcls_version": "0.15.0", "CLASSES": None}, "state_dict": mmcls(e)},
        ["state_dict", "backbone."],
        container="legacy",
        ignored=("meta",),
    ),
    "mmcls 0.x, with its EMA hook": Layout(
        "mmcls",
        lambda e, o: {"meta": {}, "optimizer": {}, "state_dict": mmcls(e) | ema_names(mmcls(o))},
        ["state_dict", "backbone."],
        ignored=("meta", "optimizer", "ema_head_fc_bias"),
    ),
    "mmpretrain 1.x, a training": Layout(
        "mmcls",
        mmpretrain,
        ["state_dict", "backbone."],
        ignored=("ema_state_dict", "message_hub", "data_preprocessor.mean", "neck.gap.scale"),
    ),
    "mmselfsup": Layout(
        "mmcls",
        lambda e, _: {
            "meta": {"mmselfsup_version": "0.11.0"},
            "state_dict": mmcls(without_head(e))
            | {"neck.fc0.weight": torch.ones(2, 2), "head.predictor.fc0.weight": torch.ones(2, 2)},
        },
        ["state_dict", "backbone."],
        loaded=318,
        ignored=("neck.fc0.weight", "head.predictor.fc0.weight"),
    ),
    "timm, a training with EMA": Layout(
        "torchvision",
        of_timm,
        ["state_dict_ema"],
        ignored=("state_dict", "args", "epoch", "arch", "version"),
    ),
    "timm, safetensors": Layout(
        "torchvision", lambda e, _: e, container="safetensors", metadata={"format": "pt"}
    ),
    "transformers, pytorch_model.bin": Layout(
        "transformers", lambda e, _: transformers(e), ["resnet."]
    ),
    "transformers, model.safetensors": Layout(
        "transformers",
        lambda e, _: transformers(e),
        ["resnet."],
        container="safetensors",
        metadata={"format": "pt"},
    ),
    "transformers, without a head": Layout(
        "transformers",
        lambda e, _: {
            name.removeprefix("resnet."): value
            for name, value in transformers(without_head(e)).items()
        },
        loaded=318,
    ),
    "transformers around timm": Layout(
        "torchvision",
        lambda e, _: prefixed("timm_model.", e),
        ["timm_model."],
        container="safetensors",
    ),
    "Lightning": Layout(
        "torchvision",
        lambda e, _: {
            "epoch": 2,
            "global_step": 10,
            "pytorch-lightning_version": "2.5.0",
            "state_dict": prefixed("model.", e) | {"criterion.weight": torch.ones(10)},
            "loops": {},
            "hyper_parameters": {"lr": 0.1},
        },
        ["state_dict", "model."],
        ignored=("criterion.weight", "loops", "hyper_parameters", "epoch"),
    ),
    "DDP": Layout("torchvision", lambda e, _: prefixed("module.", e), ["module."]),
    "torch.compile": Layout("torchvision", lambda e, _: prefixed("_orig_mod.", e), ["_orig_mod."]),
    "Lightning, DDP and torch.compile": Layout(
        "torchvision",
        lambda e, _: {"state_dict": prefixed("model.module._orig_mod.", e)},
        ["state_dict", "model.module._orig_mod."],
        container="legacy",
    ),
    "mmcls under DDP": Layout(
        "mmcls", lambda e, _: prefixed("module.", mmcls(e)), ["module.backbone."]
    ),
    "Composer": Layout(
        "torchvision",
        lambda e, _: {
            "state": {"model": prefixed("module.", e), "optimizers": {}},
            "rng": [{"python": torch.ones(3)}],
        },
        ["state", "model", "module."],
        ignored=("rng", "state.optimizers"),
    ),
    "Composer, flat": Layout(
        "torchvision",
        lambda e, _: prefixed("state.model.", e),
        ["state.model."],
        container="safetensors",
    ),
    "our checkpoint": Layout(
        "ours",
        lambda e, _: {"model": e, "optimizer": {"state": {}}, "step": 3, "ranks": {}},
        ["model"],
        ignored=("optimizer", "step", "ranks"),
    ),
    "our safetensors": Layout(
        "torchvision", lambda e, _: e, container="safetensors", metadata={"step": "3"}
    ),
}
