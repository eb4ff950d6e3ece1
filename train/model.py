"""The network: torchvision's ResNet-50 with the recipe's stem, initialisation and frozen stages."""

from __future__ import annotations

import math
from itertools import chain

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from configs.schema import Model
from train.batches import derive_seed

STEM = ("conv1", "bn1")
STAGES = ("layer1", "layer2", "layer3", "layer4")
BLOCKS = (3, 4, 6, 3)  # of each stage


class ResNet50(ResNet):
    """torchvision's `resnet50`, of which the modules named in `frozen` are never trained."""

    frozen: tuple[str, ...] = ()

    def freeze(self, stages: int) -> None:
        """Keep the stem and the first `stages` stages as they are, whatever mode is asked for."""
        self.frozen = (*STEM, *STAGES[:stages])
        for name in self.frozen:
            self.get_submodule(name).requires_grad_(requires_grad=False)
        self.train(self.training)

    def train(self, mode: bool = True) -> ResNet50:
        """Training or evaluation mode; frozen batch norms stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self


def build_model(config: Model, seed: int) -> ResNet50:
    """A freshly initialised ResNet-50; equal for equal seeds, whatever ran before.

    Convolutions start from He's normal distribution (fan out), the last layer from a normal one of
    standard deviation 0.01, as MMClassification does. The block-closing norms start at 0 only when
    nothing is loaded over them (`zero_init_residual`, Goyal et al. 2017, arXiv 1706.02677).

    Args:
        config: the recipe's section; its weights are not loaded here.
        seed: of the recipe.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights", 0))
        return make_network(config)


def blank_model(config: Model) -> ResNet50:
    """A ResNet-50 to load all entries into, without random ones, which take 0.2 s of a core.

    Until then they are NaN, so that nobody takes what is not loaded for weights.
    """
    with torch.device("meta"):
        model = make_network(config)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for each in chain(model.parameters(), model.buffers()):
            each.fill_(math.nan if each.is_floating_point() else 0)
    return model


def make_network(config: Model) -> ResNet50:
    """The network of a recipe, initialised on torch's default device by its default generator."""
    model = ResNet50(
        Bottleneck,
        list(BLOCKS),
        num_classes=config.num_classes,
        zero_init_residual=config.zero_init_residual and config.weights is None,
    )
    if config.stem == "cifar":
        model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    nn.init.normal_(model.fc.weight, std=0.01)
    nn.init.zeros_(model.fc.bias)
    if config.freeze_stages is not None:
        model.freeze(config.freeze_stages)
    return model.to(memory_format=torch.channels_last)
