"""Pretrained weights: read a checkpoint of a known layout and account for every entry.

Nothing is loaded in silence: each entry of the model is loaded or named as re-initialised, each
entry of the file is used or named as ignored, and anything else is an error.

    python -m train.weights FILE [--classes N]     prints that account (exit code 1: refused)
"""

from __future__ import annotations

import argparse
import pickle
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from configs.schema import Model
from train.errors import RequestError
from train.model import build_model

HEAD = ("fc.weight", "fc.bias")
NAMED_IN_ERRORS = 4


@dataclass
class Account:
    """What became of every entry of the model and of the file.

    `loaded`: entries of the model that came from the file. `reinitialised` and `ignored`: entry to
    reason. `layout`: whose names the file uses.
    """

    layout: str
    loaded: list[str] = field(default_factory=list)
    reinitialised: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """One line: how many entries were loaded, and which were not."""
        parts = [f"{len(self.loaded)} entries loaded ({self.layout} layout)"]
        if self.reinitialised:
            parts.append(f"re-initialised: {', '.join(self.reinitialised)}")
        if self.ignored:
            parts.append(f"ignored: {', '.join(self.ignored)}")
        return "; ".join(parts)

    def table(self, title: str) -> Table:
        """The account as a table for a terminal."""
        table = Table(title=title, title_justify="left")
        table.add_column("entries", justify="right")
        table.add_column("what became of them")
        table.add_row(str(len(self.loaded)), f"loaded ({self.layout} layout)")
        for name, reason in self.reinitialised.items():
            table.add_row("1", f"{name}: re-initialised, {reason}")
        for name, reason in self.ignored.items():
            table.add_row("1", f"{name}: ignored, {reason}")
        return table


def load_weights(model: nn.Module, path: Path) -> Account:
    """Load the checkpoint at `path` into `model` and say what became of every entry.

    The last layer is re-initialised, that is left alone, when its number of classes differs.

    Raises:
        RequestError: missing, unreadable or unsafe file, another architecture, missing entries,
            other shapes, values that are not finite. `model` is then as it was.
    """
    layout, entries = canonical(read_checkpoint(path))
    account = Account(layout)
    wanted = model.state_dict()
    accepted: dict[str, Tensor] = {}
    problems = []
    for name, tensor in entries.items():
        if name not in wanted:
            problems.append(f"{name} is not in ResNet-50")
        elif tensor.shape == wanted[name].shape:
            accepted[name] = tensor
            account.loaded.append(name)
        elif name in HEAD:
            reason = f"the file has {tensor.shape[0]} classes, the recipe {wanted[name].shape[0]}"
            account.reinitialised[name] = reason
        else:
            shapes = f"{tuple(tensor.shape)} in the file, {tuple(wanted[name].shape)} in the model"
            problems.append(f"{name} is {shapes}")
    for name, tensor in wanted.items():
        if name in entries:
            continue
        if name.endswith("num_batches_tracked"):  # files older than torch 0.4.1 have none
            account.reinitialised[name] = "the file is older than this counter"
            accepted[name] = tensor
        elif name in HEAD and not any(part in entries for part in HEAD):
            account.reinitialised[name] = "the file has no last layer"
        else:
            problems.append(f"{name} is missing")
    problems += [
        f"{name} has values that are not finite"
        for name, tensor in accepted.items()
        if not torch.isfinite(tensor).all()
    ]
    if problems:
        raise RequestError(describe(path, problems))
    model.load_state_dict(accepted, strict=False)
    return account


def describe(path: Path, problems: list[str]) -> str:
    """The refusal's text: the first few problems, and how many there are."""
    more = len(problems) - NAMED_IN_ERRORS
    listed = "; ".join(problems[:NAMED_IN_ERRORS]) + (f"; and {more} more" if more > 0 else "")
    return (
        f"model.weights: {path} does not fit this ResNet-50: {listed}. "
        "Give the checkpoint of a ResNet-50 with model.stem's stem, or set model.weights to null"
    )


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """The dictionary saved at `path`, on the CPU, without running any code from the file.

    Raises:
        RequestError: missing, unreadable, damaged, or holding more than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RequestError(f"model.weights: there is no file {path}") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise RequestError(
            f"model.weights: {path} is no checkpoint that can be read safely: {reason}"
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(f"model.weights: {path} cannot be read: {reason}") from None
    if not isinstance(content, Mapping):
        raise RequestError(f"model.weights: {path} holds no dictionary of tensors")
    return content


def canonical(content: Mapping[str, Any]) -> tuple[str, dict[str, Tensor]]:
    """The layout's name and the entries under torchvision's names.

    mmcls wraps the entries in 'state_dict', with 'backbone.' before the network's names and
    'head.fc.' before those of the last layer; torchvision saves the bare entries.

    Raises:
        RequestError: neither of the two, or an entry that is no tensor.
    """
    entries = content.get("state_dict", content)
    if not isinstance(entries, Mapping) or not entries:
        raise RequestError("model.weights: the file holds no entries of a network")
    foreign = [str(name) for name, value in entries.items() if not isinstance(value, Tensor)]
    if foreign:
        raise RequestError(f"model.weights: {foreign[0]} in the file is no tensor")
    if any(name.startswith("backbone.") for name in entries):
        renamed = {name.removeprefix("backbone."): value for name, value in entries.items()}
        return "mmcls", {
            name.removeprefix("head.") if name.startswith("head.fc.") else name: value
            for name, value in renamed.items()
        }
    return "torchvision", dict(entries)


def main() -> int:
    """Print the account of a checkpoint file."""
    parser = argparse.ArgumentParser(
        prog="python -m train.weights",
        description="Say what a checkpoint file would load into the recipe's ResNet-50.",
        epilog="example: python -m train.weights weights/resnet50-0676ba61.pth",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--classes", type=int, default=10, help="of the recipe (default: 10)")
    parser.add_argument("--stem", choices=["imagenet", "cifar"], default="imagenet")
    args = parser.parse_args()
    model = build_model(Model(num_classes=args.classes, stem=args.stem), seed=0)
    try:
        account = load_weights(model, args.file)
    except RequestError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    Console().print(account.table(str(args.file)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
