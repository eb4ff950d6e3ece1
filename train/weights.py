"""Pretrained weights: account for every entry of a checkpoint, then load it.

Nothing is loaded in silence: each entry of the model is loaded or named as re-initialised, each
entry of the file is used or named as ignored, and anything else is an error.

    python -m train.weights FILE [--classes N] [--stem cifar]

prints that account (exit code 1: refused).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from configs.archives import MOST_CLASSES
from configs.checksum import promised_sha256
from configs.schema import Model
from train.architectures import other_resnet
from train.containers import Checkpoint, read_checkpoint
from train.errors import RequestError, printable
from train.layouts import Network, find_network
from train.model import blank_model

HEAD = ("fc.weight", "fc.bias")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COUNTS = (torch.int32, torch.int64)
COUNTER = "num_batches_tracked"
NAMED = 4
UNSEEN = (
    "A file's names and shapes do not tell which convolution of a block strides (torchvision, timm "
    "and MMClassification's 'pytorch' style: the second), the order of the colours, or how the "
    "images were normalised."
)


@dataclass
class Account:
    """What became of every entry of the model and of the file.

    `loaded`: entries of the model that came from the file. `reinitialised` and `ignored`: entry to
    reason. `layout`, `wrapping`, `facts`: as in `train.layouts.Network`. `container`, `sha256`,
    `size`: as in `train.containers.Checkpoint`.
    """

    layout: str
    wrapping: list[str]
    container: str
    sha256: str
    size: int
    facts: dict[str, str]
    loaded: list[str] = field(default_factory=list)
    reinitialised: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """One line: how many entries were loaded, and which were not."""
        parts = [f"{len(self.loaded)} entries loaded ({self.layout} layout)"]
        if self.reinitialised:
            parts.append(f"re-initialised: {listed(list(self.reinitialised))}")
        if self.ignored:
            parts.append(f"ignored: {listed(list(self.ignored))}")
        return "; ".join(parts)

    def table(self, title: str) -> Table:
        """The account as a table for a terminal: what the file is, then its entries by reason."""
        table = Table(title=Text(title), title_justify="left", show_header=False)
        table.caption, table.caption_justify = Text(UNSEEN), "left"
        within = f", in {' '.join(map(printable, self.wrapping))}" if self.wrapping else ""
        told = ", ".join(f"{key} {value}" for key, value in self.facts.items())
        rows = [
            ("file", f"{self.size:,} bytes, {self.container}, SHA-256 {self.sha256[:16]}..."),
            ("layout", self.layout + within),
            ("says", told or "nothing of itself"),
            ("loaded", f"{len(self.loaded)}"),
        ]
        for what, entries in (("re-initialised", self.reinitialised), ("ignored", self.ignored)):
            for reason, names in by_reason(entries).items():
                rows.append((what, f"{len(names)}: {listed(names)}: {reason}"))
        for what, text in rows:
            table.add_row(what, Text(text))
        return table


def listed(names: list[str]) -> str:
    """The first few of `names`, and how many more there are."""
    more = len(names) - NAMED
    first = ", ".join(map(printable, names[:NAMED]))
    return first + (f" and {more} more" if more > 0 else "")


def by_reason(entries: Mapping[str, str]) -> dict[str, list[str]]:
    """Names by the reason that they share."""
    groups: dict[str, list[str]] = {}
    for name, reason in entries.items():
        groups.setdefault(reason, []).append(name)
    return groups


def load_weights(model: nn.Module, path: Path) -> Account:
    """Load the checkpoint at `path` into `model` and say what became of every entry.

    The last layer is re-initialised, that is left alone, when its number of classes differs.

    Raises:
        RequestError: missing, unreadable or unsafe file, another SHA-256 than its name promises,
            another architecture, missing entries, other shapes or types, values that are not
            finite. `model` is then as it was.
    """
    try:
        checkpoint = read_checkpoint(path)
    except RequestError as error:
        raise RequestError(f"model.weights: {error}") from None
    if problem := broken_promise(path, checkpoint):
        raise RequestError(f"model.weights: {problem}")
    try:
        network = find_network(checkpoint)
        account, accepted = reconcile(network, checkpoint, model.state_dict())
    except RequestError as error:
        raise RequestError(
            f"model.weights: {path} does not fit this ResNet-50: {error}. "
            "Give the checkpoint of a ResNet-50 with model.stem's stem, or set model.weights to "
            "null"
        ) from None
    model.load_state_dict(accepted, strict=False)
    return account


def broken_promise(path: Path, checkpoint: Checkpoint) -> str | None:
    """Whether the file is another one than its name says, in words."""
    promised = promised_sha256(path.name)
    if promised is None or checkpoint.sha256.startswith(promised):
        return None
    return (
        f"{path} has SHA-256 {checkpoint.sha256[:16]}..., not the {promised} of its name: bring it "
        "again or, if this is the one that you mean, rename it"
    )


def reconcile(
    network: Network, checkpoint: Checkpoint, wanted: Mapping[str, Tensor]
) -> tuple[Account, dict[str, Tensor]]:
    """The account of `network` for a model with the entries `wanted`, and what is to be loaded.

    Raises:
        RequestError: it is another network, or an entry is missing, unknown or unfit.
    """
    account = Account(
        network.layout,
        network.wrapping,
        checkpoint.container,
        checkpoint.sha256,
        checkpoint.size,
        network.facts,
        ignored=dict(network.ignored),
    )
    entries = network.entries
    problems = [f"{printable(name)} is not in ResNet-50" for name in entries if name not in wanted]
    problems += settle_head(account, entries, wanted)
    accepted: dict[str, Tensor] = {}
    for name, own in wanted.items():
        if name in account.reinitialised:
            continue
        is_counter = name.endswith(COUNTER)
        # Some programs cast or average it with the weights; no step depends on it.
        if name in entries and not (is_counter and entries[name].is_floating_point()):
            accepted[name] = entries[name]
            account.loaded.append(name)
            problems += misfits(name, entries[name], own)
        elif name in entries:
            account.reinitialised[name] = "the file has this counter as a floating-point number"
        elif is_counter:  # files older than torch 0.4.1 have none
            account.reinitialised[name] = "the file is older than this counter"
        else:
            problems.append(f"{name} is missing")
    if problems:
        more = len(problems) - NAMED
        text = "; ".join(problems[:NAMED]) + (f"; and {more} more" if more > 0 else "")
        kind = other_resnet(entries, wanted)
        raise RequestError(f"{kind}: {text}" if kind else text)
    if network.is_caffe:
        raise RequestError(
            "its configuration says style='caffe': its blocks stride in their first convolution, "
            "those of this model in the second, which no name or shape shows"
        )
    return account, accepted


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
    if not 2 <= args.classes <= MOST_CLASSES:
        parser.error(f"--classes takes a whole number from 2 to {MOST_CLASSES:,}")
    model = blank_model(Model(num_classes=args.classes, stem=args.stem))
    try:
        account = load_weights(model, args.file)
    except RequestError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    Console().print(account.table(str(args.file)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
