"""Whose names a checkpoint uses, and torchvision's names for the same entries.

Files differ in three ways: in what is wrapped around the entries (dictionaries, such as
'state_dict', and prefixes, such as DDP's 'module.'), in the names of the layers, and in what else
lies beside the network. All three are told from the entries themselves, never from the file's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from train.architectures import foreign_network
from train.containers import Checkpoint
from train.errors import RequestError, printable

# Dictionaries around the entries, in the order of preference: timm and torchvision's training
# scripts score the averaged weights, which they save beside the others.
AVERAGED = ("state_dict_ema", "model_ema")
WRAPPERS = (*AVERAGED, "state_dict", "model", "model_state_dict", "state", "net", "network")
MOST_WRAPPERS = 4
OURS = {"model", "optimizer", "step", "ranks"}
# MMEngine and Lightning exchange the two sets when they save.
EXCHANGED = "a second set of weights: who saves it so has the averaged ones in state_dict"
SIBLINGS = {"ema_state_dict": EXCHANGED, "current_model_state": EXCHANGED}

PREFIXES = (
    "state.model.", "state_dict.", "model.", "module.", "_orig_mod.", "timm_model.", "net.",
    "network.", "backbone.", "resnet.",
)  # fmt: skip
PREFIX = re.compile(f"(?:{'|'.join(map(re.escape, PREFIXES))})*")
FIRST = {"conv1.weight": "torchvision", "embedder.embedder.convolution.weight": "transformers"}
BESIDE = (
    (
        re.compile(r"ema_|(?:ema|ema_model|model_ema|averaged_model|teacher|momentum_\w{1,20})\."),
        "a second set of weights: those under the plain names are used",
    ),
    (re.compile(r"neck\."), "a neck, which ResNet-50 does not have"),
    (
        re.compile(r"data_preprocessor\."),
        "how its inputs were normalised: data.mean and data.std say it here",
    ),
    (re.compile(r"head\."), "another head than one linear layer"),
    (re.compile(r"n_averaged$"), "a count, no weight"),
)
STAGE = re.compile(
    r"encoder\.stages\.([0-9]{1,3})\.layers\.([0-9]{1,3})\."
    r"(?:layer\.([0-9]{1,3})|shortcut)\.(convolution|normalization)\.(\w+)"
)
STEM = {"embedder.embedder.convolution.": "conv1.", "embedder.embedder.normalization.": "bn1."}

CAFFE = re.compile(r"""style['"]?\s*[=:]\s*['"]caffe['"]""")
NORMALISATION = re.compile(r"""(?:mean|std)['"]?\s*[=:]\s*\[[-0-9., \n]{1,80}\]""")
FACTS = (
    "arch", "architecture", "epoch", "iter", "step", "global_step", "pytorch-lightning_version",
    "mmcls_version", "mmpretrain_version", "mmselfsup_version", "mmengine_version",
    "experiment_name",
)  # fmt: skip
MOST_FACTS = 12


@dataclass
class Network:
    """The network found in a checkpoint.

    `layout`: 'ours', 'mmcls', 'transformers' or 'torchvision', whose names timm uses, too.
    `wrapping`: dictionaries and prefixes around the entries, in the file's words.
    `entries`: by torchvision's names. `ignored`: name in the file to reason. `facts`: what the file
    says of itself. `is_caffe`: whether it says that its blocks stride in their first convolution.
    """

    layout: str
    wrapping: list[str]
    entries: dict[str, Tensor] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    is_caffe: bool = False


def find_network(checkpoint: Checkpoint) -> Network:
    """The network in `checkpoint`, whoever saved it.

    Raises:
        RequestError: it holds none, another one than a ResNet, two, or an entry that is no plain
            tensor.
    """
    wrapping, found, ignored = unwrap(checkpoint.content)
    if not found:
        raise RequestError("it holds no entries of a network")
    if strange := next((name for name in found if not isinstance(name, str)), None):
        raise RequestError(f"{printable(strange)} is an entry whose name is no text")
    layout, root = find_root(found)
    if checkpoint.content.keys() >= OURS:
        layout = "ours"
    network = Network(layout, [*wrapping, *([root] if root else [])], ignored=ignored)
    network.facts, network.is_caffe = facts_of(checkpoint)

    sources: dict[str, str] = {}
    for source, value in found.items():
        name = canonical(source, root, layout)
        if name is None:
            network.ignored[source] = beside(source, root)
            continue
        if name in sources:
            raise RequestError(both(sources[name], source, name))
        if problem := strangeness(value):
            raise RequestError(f"{printable(source)} {problem}")
        sources[name] = source
        network.entries[name] = value
    return network


def unwrap(content: Mapping[Any, Any]) -> tuple[list[str], Mapping[Any, Any], dict[str, str]]:
    """The dictionaries around the entries, by name; the entries; what else lies there, ignored."""
    wrapping: list[str] = []
    ignored: dict[str, str] = {}
    found = content
    while len(wrapping) < MOST_WRAPPERS:
        inner = [key for key in WRAPPERS if isinstance(found.get(key), Mapping) and found[key]]
        if not inner:
            break
        for key in found:
            if key != inner[0]:
                reason = SIBLINGS.get(key, "no part of the network")
                if key in inner:
                    reason = f"a second set of weights: {inner[0]} is used"
                ignored[".".join([*wrapping, str(key)])] = reason
        wrapping.append(inner[0])
        found = found[inner[0]]
    return wrapping, found, ignored


def find_root(found: Mapping[str, Any]) -> tuple[str, str]:
    """Whose names the entries have, and the prefix of the network's, by its first convolution.

    Raises:
        RequestError: there is no ResNet, or there are two.
    """
    firsts = {}
    for name in found:
        prefix, rest = split(name)
        if rest in FIRST:
            firsts[name] = (FIRST[rest], prefix)
    if len(firsts) > 1:
        one, other = list(firsts)[:2]
        raise RequestError(both(one, other, "conv1.weight"))
    if not firsts:
        raise RequestError(foreign_network(found))
    layout, root = next(iter(firsts.values()))
    return ("mmcls" if root.endswith("backbone.") else layout), root


def split(name: str) -> tuple[str, str]:
    """An entry's wrapping prefixes and the rest of its name."""
    match = PREFIX.match(name)
    end = match.end() if match else 0
    return name[:end], name[end:]


def canonical(name: str, root: str, layout: str) -> str | None:
    """What torchvision calls the file's entry `name`; None for what is no part of the network."""
    parent = root.removesuffix("backbone.").removesuffix("resnet.")
    for head in ("head.fc.", "classifier.1."):
        if name.startswith(parent + head):
            return "fc." + name.removeprefix(parent + head)
    rest = name.removeprefix(root)
    if not name.startswith(root) or any(pattern.match(rest) for pattern, _ in BESIDE):
        return None
    return from_transformers(rest) if layout == "transformers" else rest


def from_transformers(name: str) -> str:
    """What torchvision calls the entry `name` of Hugging Face's ResNet."""
    for theirs, ours in STEM.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    match = STAGE.fullmatch(name)
    if not match:
        return name
    stage, block, layer, kind, last = match.groups()
    is_norm = kind == "normalization"
    module = (
        f"{'bn' if is_norm else 'conv'}{int(layer) + 1}" if layer else f"downsample.{is_norm:d}"
    )
    return f"layer{int(stage) + 1}.{block}.{module}.{last}"


def beside(name: str, root: str) -> str:
    """Why an entry that is no part of the network is ignored."""
    _, rest = split(name)
    for pattern, reason in BESIDE:
        if pattern.match(rest):
            return reason
    return f"beside the network, which is in {root}"


def both(one: str, other: str, name: str) -> str:
    """The refusal of two entries that are one."""
    return (
        f"it has both {printable(one)} and {printable(other)}, which are one entry, "
        f"{printable(name)}: remove one of them"
    )


def strangeness(value: object) -> str | None:
    """What is wrong with an entry that is to be a plain tensor, if anything."""
    if not isinstance(value, Tensor):
        return "is no tensor"
    is_plain = value.layout == torch.strided and not value.is_quantized and not value.is_nested
    if not is_plain or value.device.type != "cpu":
        return "is no plain tensor, but a sparse, quantized, nested or empty (meta) one"
    return None


def facts_of(checkpoint: Checkpoint) -> tuple[dict[str, str], bool]:
    """What a file says of itself, and whether its configuration is caffe's style."""
    facts: dict[str, str] = {}
    content = checkpoint.content
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    for source in (content, meta, checkpoint.metadata):
        keys = source if source is checkpoint.metadata else FACTS
        for key in keys:
            value = source.get(key)
            if isinstance(value, str | int | float) and len(facts) < MOST_FACTS:
                facts[printable(key, 40)] = printable(value, 60)
    data_set = meta.get("dataset_meta")
    classes = meta.get(
        "CLASSES", data_set.get("classes") if isinstance(data_set, Mapping) else None
    )
    if isinstance(classes, list | tuple):
        facts["classes"] = f"{len(classes):,}"
    text = next((meta[key] for key in ("config", "cfg") if isinstance(meta.get(key), str)), "")
    told = dict.fromkeys(" ".join(found.split()) for found in NORMALISATION.findall(text))
    if told:
        facts["normalisation"] = printable(", ".join(list(told)[:2]), 120)
    return facts, bool(CAFFE.search(text))
