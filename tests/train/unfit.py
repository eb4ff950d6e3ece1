"""Entries of other networks and unfit ones, each with the words that they are refused with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torchvision import models

from tests.train.layouts import Entries, mmcls, prefixed


def without(entries: Entries, *names: str) -> Entries:
    return {key: value for key, value in entries.items() if key not in names}


def of(name: str) -> Entries:
    """Entries of the names and shapes of another network of torchvision's, without its values."""
    with torch.device("meta"):
        network = getattr(models, name)()
    return {
        key: torch.zeros((), dtype=value.dtype).expand(value.shape)
        for key, value in network.state_dict().items()
    }


def resnet50d(entries: Entries) -> Entries:
    deep = {"conv1.0.weight": torch.ones(32, 3, 3, 3), "conv1.3.weight": torch.ones(32, 32, 3, 3)}
    return without(entries, "conv1.weight") | deep


FOREIGN: list[tuple[Callable[[Entries], Any], str]] = [
    (lambda _: of("resnet18"), r"it is a ResNet-18 \(2, 2, 2, 2 blocks\)"),
    (lambda _: of("resnet34"), r"it is a ResNet-34 \(3, 4, 6, 3 blocks\)"),
    (lambda _: of("resnet101"), r"it is a ResNet-101 .*: layer3.6.conv1.weight is not in .* more"),
    (lambda _: of("resnet152"), "it is a ResNet-152"),
    (lambda _: mmcls(of("resnet101")), "it is a ResNet-101"),
    (lambda _: of("wide_resnet50_2"), r"it is a wide ResNet-50 \(128 channels"),
    (lambda _: of("resnext50_32x4d"), r"it is a ResNeXt-50 \(32 groups\)"),
    (lambda _: of("vit_b_16"), r"it is a ViT \(it has class_token\)"),
    (lambda _: of("densenet121"), "it is a DenseNet"),
    (lambda _: of("vgg11"), "it is a VGG"),
    (resnet50d, "a stem of three convolutions"),
    (lambda e: mmcls(resnet50d(e)), "a stem of three convolutions"),
    (
        lambda e: e | {"layer2.0.downsample.1.weight": torch.ones(512, 256, 1, 1)},
        "shortcuts pool first",
    ),
    (lambda e: e | {"layer1.0.se.fc1.weight": torch.ones(1)}, "an SE-ResNet"),
    (
        lambda e: e | {"conv1.weight": torch.ones(64, 3, 3, 3)},
        "it has the stem of model.stem cifar: set model.stem to cifar: "
        r"conv1.weight is \(64, 3, 3, 3\) in the file, \(64, 3, 7, 7\) in the model",
    ),
    (lambda e: e | {"conv1.weight": torch.ones(64, 1, 7, 7)}, "images of 1 channels, not 3"),
    (
        lambda e: {"meta": {"config": "style='caffe',"}, "state_dict": mmcls(e)},
        "its configuration says style='caffe'",
    ),
    (lambda _: {"encoder_q.0.conv1.weight": torch.ones(1)}, "a self-supervised pair"),
    (lambda _: {"a.weight": torch.ones(1)}, "it has no conv1.weight .*: a.weight"),
]


UNFIT: list[tuple[Callable[[Entries], Any], str]] = [
    (lambda e: without(e, "layer1.0.conv1.weight"), "layer1.0.conv1.weight is missing"),
    (
        lambda e: without(e, *list(e)[6:20]),
        "layer1.0.conv1.weight is missing; layer1.0.bn1.weight .*; and 8 more",
    ),
    (lambda e: without(e, "fc.bias"), "fc.bias is missing"),
    (lambda e: e | {"extra.weight": torch.ones(1)}, "extra.weight is not in ResNet-50"),
    (
        lambda e: e | {"layer1.0.bn1.weight": torch.ones(3)},
        r"layer1.0.bn1.weight is \(3,\) in the file, \(64,\) in the model",
    ),
    (
        lambda e: e | {"bn1.bias": torch.full((64,), float("nan"))},
        "bn1.bias has values that are not finite",
    ),
    (
        lambda e: e | {"bn1.bias": torch.full((64,), 1e300, dtype=torch.float64)},
        "bn1.bias has values that are not finite in torch.float32",
    ),
    (
        lambda e: e | {"bn1.running_var": torch.full((64,), -5.0)},
        "bn1.running_var has negative values",
    ),
    (
        lambda e: e | {"bn1.bias": torch.ones(64, dtype=torch.complex64)},
        "bn1.bias is torch.complex64 in the file, torch.float32 in the model",
    ),
    (
        lambda e: e | {"conv1.weight": torch.ones(64, 3, 7, 7, dtype=torch.int8)},
        "conv1.weight is torch.int8 in the file, torch.float32 in the model",
    ),
    (
        lambda e: e | {"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)},
        r"fc.weight \(10, 512\) and fc.bias \(10,\) are no last layer of 2048 inputs",
    ),
    (
        lambda e: e | {"fc.bias": torch.zeros(1000)},
        r"fc.weight \(10, 2048\) and fc.bias \(1000,\) are no last layer of 2048 inputs",
    ),
    (lambda e: e | {"fc.weight": torch.tensor(1.0)}, r"fc.weight \(\) and fc.bias \(10,\) are no"),
    (lambda e: e | {"fc.bias": torch.tensor(1.0)}, r"fc.bias \(\) are no last layer"),
    (lambda e: e | {"epoch": 3}, "epoch is no tensor"),
    (lambda e: e | {1: torch.ones(1)}, "1 is an entry whose name is no text"),
    (lambda e: {key: value.to("meta") for key, value in e.items()}, "is no plain tensor"),
    (lambda e: e | {"conv1.weight": e["conv1.weight"].to_sparse()}, "is no plain tensor"),
    (lambda e: {"state_dict": None}, "state_dict"),
    (lambda e: {}, "it holds no entries of a network"),
    (
        lambda e: mmcls(e) | {"conv1.weight": e["conv1.weight"]},
        "it has both backbone.conv1.weight and conv1.weight, which are one entry",
    ),
    (
        lambda e: prefixed("model.", e) | prefixed("model.module.", e),
        "it has both model.conv1.weight and model.module.conv1.weight",
    ),
    (
        lambda e: mmcls(e) | {"backbone.fc.bias": e["fc.bias"]},
        "it has both head.fc.bias and backbone.fc.bias, which are one entry, fc.bias",
    ),
    (
        lambda e: e | {"\x1b[31m\ud800": torch.ones(1)},
        "^\N{REPLACEMENT CHARACTER}.31m\N{REPLACEMENT CHARACTER} is not in ResNet-50$",
    ),
]
