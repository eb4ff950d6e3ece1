"""The network: torchvision's ResNet-50 with the recipe's stem and initialisation."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import ResNet, resnet50

from configs.schema import Model
from train.batches import derive_seed


def build_model(config: Model, seed: int) -> ResNet:
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
        model = resnet50(
            weights=None,
            num_classes=config.num_classes,
            zero_init_residual=config.zero_init_residual and config.weights is None,
        )
        if config.stem == "cifar":
            model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
            model.maxpool = nn.Identity()
        nn.init.normal_(model.fc.weight, std=0.01)
        nn.init.zeros_(model.fc.bias)
    return model.to(memory_format=torch.channels_last)
