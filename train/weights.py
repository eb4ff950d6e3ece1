"""Pretrained weights: read a checkpoint of a known layout and account for every entry.

Nothing is loaded in silence: each entry of the model is loaded or named as re-initialised, each
entry of the file is used or named as ignored, and anything else is an error.

    python -m train.weights FILE [--classes N]     prints that account (exit code 1: refused)
"""

from __future__ import annotations

import argparse
import sys
import warnings
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
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COUNTS = (torch.int32, torch.int64)
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
            other shapes or types, values that are not finite. `model` is then as it was.
    """
    account, entries = canonical(read_checkpoint(path), path)
    wanted = model.state_dict()
    problems = [f"{name} is not in ResNet-50" for name in entries if name not in wanted]
    problems += settle_head(account, entries, wanted)
    accepted: dict[str, Tensor] = {}
    for name, own in wanted.items():
        if name in account.reinitialised:
            continue
        if name in entries:
            accepted[name] = entries[name]
            account.loaded.append(name)
            problems += misfits(name, entries[name], own)
        elif name.endswith("num_batches_tracked"):  # files older than torch 0.4.1 have none
            account.reinitialised[name] = "the file is older than this counter"
        else:
            problems.append(f"{name} is missing")
    if problems:
        raise RequestError(describe(path, problems))
    model.load_state_dict(accepted, strict=False)
    return account


def settle_head(
    account: Account, entries: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> list[str]:
    """Note in `account` if the last layer starts anew, both its entries or none; the problems."""
    if not any(name in entries for name in HEAD):
        account.reinitialised |= dict.fromkeys(HEAD, "the file has no last layer")
    if not all(name in entries for name in HEAD):
        return []
    weight, bias = (tuple(entries[name].shape) for name in HEAD)
    classes, inputs = wanted[HEAD[0]].shape
    if len(bias) != 1 or weight != (*bias, inputs):
        return [f"fc.weight {weight} and fc.bias {bias} are no last layer of {inputs} inputs"]
    if bias != (classes,):
        reason = f"the file has {bias[0]} classes, the recipe {classes}"
        account.reinitialised |= dict.fromkeys(HEAD, reason)
    return []


def misfits(name: str, tensor: Tensor, own: Tensor) -> list[str]:
    """Why the file's `tensor` cannot take the place of the model's `own`: one reason, or none."""
    if tensor.shape != own.shape:
        return [f"{name} is {tuple(tensor.shape)} in the file, {tuple(own.shape)} in the model"]
    if tensor.dtype not in (FLOATS if own.is_floating_point() else COUNTS):
        return [f"{name} is {tensor.dtype} in the file, {own.dtype} in the model"]
    values = tensor.to(own.dtype)  # as loaded: what is finite in float64 need not be in float32
    if not torch.isfinite(values).all():
        return [f"{name} has values that are not finite in {own.dtype}"]
    if name.endswith("running_var") and (values < 0).any():
        return [f"{name} has negative values"]
    return []


def describe(path: Path, problems: list[str]) -> str:
    """The refusal's text: the first few problems, and how many there are."""
    more = len(problems) - NAMED_IN_ERRORS
    listed = "; ".join(problems[:NAMED_IN_ERRORS]) + (f"; and {more} more" if more > 0 else "")
    return (
        f"model.weights: {path} does not fit this ResNet-50: {listed}. "
        "Give the checkpoint of a ResNet-50 with model.stem's stem, or set model.weights to null"
    )


def read_checkpoint(path: Path) -> Mapping[Any, Any]:
    """The dictionary saved at `path`, on the CPU, without running any code from the file.

    Raises:
        RequestError: missing, unreadable, damaged, or holding more than tensors and plain values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on what is then refused, or on a file's age
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RequestError(f"model.weights: there is no file {path}") from None
    except Exception as error:  # a damaged file may raise anything
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise RequestError(
            f"model.weights: {path} is no checkpoint that can be read safely: {reason}"
        ) from None
    if not isinstance(content, Mapping):
        raise RequestError(f"model.weights: {path} holds no dictionary of tensors")
    return content


def canonical(content: Mapping[Any, Any], path: Path) -> tuple[Account, dict[str, Tensor]]:
    """The entries of the network under torchvision's names, and the account begun.

    A checkpoint of ours has them in 'model', beside the optimizer's state. mmcls has them in
    'state_dict', with 'backbone.' before the network's names and 'head.fc.' before those of the
    last layer. torchvision saves the bare entries.

    Raises:
        RequestError: none of these, an entry that is no plain tensor, or two of one name.
    """
    is_ours = {"model", "optimizer", "step"} <= content.keys()
    wrapper = "model" if is_ours else "state_dict"
    found = content.get(wrapper, content)
    if not isinstance(found, Mapping) or not found:
        raise RequestError(f"model.weights: {path} holds no entries of a network")
    for name, value in found.items():
        if problem := strangeness(name, value):
            raise RequestError(f"model.weights: {name!s:.100} in {path} {problem}")
    is_mmcls = any(name.startswith("backbone.") for name in found)
    account = Account("ours" if is_ours else "mmcls" if is_mmcls else "torchvision")
    if found is not content:
        others = [str(name) for name in content if name != wrapper]
        account.ignored |= dict.fromkeys(others, "no part of the network")
    sources: dict[str, str] = {}
    for source in found:
        name = torchvision_name(source) if is_mmcls else source
        if name in sources:
            raise RequestError(
                f"model.weights: {path} has both {sources[name]} and {source}, "
                f"which are one entry, {name}: remove one of them"
            )
        sources[name] = source
    return account, {name: found[source] for name, source in sources.items()}


def torchvision_name(name: str) -> str:
    """What torchvision calls mmcls's entry `name`."""
    name = name.removeprefix("backbone.")
    return name.removeprefix("head.") if name.startswith("head.fc.") else name


def strangeness(name: object, value: object) -> str | None:
    """What is wrong with an entry of a file that is to be a named plain tensor, if anything."""
    if not isinstance(name, str):
        return "is an entry whose name is no text"
    if not isinstance(value, Tensor):
        return "is no tensor"
    is_plain = value.layout == torch.strided and not value.is_quantized and not value.is_nested
    if not is_plain or value.device.type != "cpu":
        return "is no plain tensor, but a sparse, quantized, nested or empty (meta) one"
    return None


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
    if args.classes < 2:
        parser.error("--classes takes a whole number of at least 2")
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
