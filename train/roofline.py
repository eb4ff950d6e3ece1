"""How fast the training of ResNet-50 could be if a GPU did nothing but read and write its memory.

ResNet-50 computes little with each value that it moves: in bf16 a GPU waits for its memory, not for
its arithmetic (in fp32, without tensor cores, it may be the other way round). So the bandwidth of
the memory, divided by the bytes that an image moves, is a speed that training cannot much exceed:
the roofline of Williams et al. 2009 (doi.org/10.1145/1498765.1498785).

Counted are passes over activations and their gradients, of I values where they are a layer's input
and O where they are its output:

| pass | eager | compiled | fused |
|---|---|---|---|
| convolution: forward | I + O | I + O | I + O |
| backward, for its weights | I + O | I + O | I + O |
| backward, for its input; the images need none | I + O | I + O | I + O |
| batch norm: statistics | O | O | |
| normalisation | 2 O | O | |
| backward: two sums | 2 O | 2 O | O |
| backward: its input's gradient | 3 O | 3 O | O |
| ReLU: forward | 2 O | O | |
| backward | 3 O | | |
| block: sum with the shortcut | 3 O | O, 0 if it has a norm | 3 O |
| backward: sum of its input's two gradients | 3 I | 3 I | I |
| pooling: forward and backward | 2 I + 2 O | 2 I + 2 O | 2 I + 2 O |

'eager': every layer is a kernel of its own, as without `train.compile`, whether steps are recorded
as a CUDA graph or not. 'compiled': all between two convolutions is one kernel, or two where
statistics must be known first, as with `train.compile`. 'fused': normalisation, ReLU and sums are
parts of the convolutions, as in kernels that are written for records; PyTorch has none such.

Not counted are weights, gradients and momentum: they move once a step, not once an image (some 3 %
more with 64 images a step on a GPU in bf16); nor are the positions that max-pooling notes down
(0.7 % more in the eager tier at 224 px). What stays in the GPU's cache is counted as if it came
from memory, so that small batches on GPUs with large caches may do better.
"""

from __future__ import annotations

import functools
import re
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from configs.schema import Model
from train.model import build_model

Stem = Literal["imagenet", "cifar"]
Tier = Literal["eager", "compiled", "fused"]
TIERS: tuple[Tier, ...] = get_args(Tier)

GB = 1e9

# Peak bandwidth of the memory in bytes/s, by the whole name that the driver gives a GPU: a slice of
# one (MIG) has a longer name and less bandwidth. From NVIDIA's data sheets of each, and for GeForce
# from the whitepapers of the Turing, Ampere, Ada and Blackwell architectures.
DEVICES = {
    r"Tesla V100-(SXM2|PCIE)-(16|32)GB": 900 * GB,
    r"Tesla V100S-PCIE-32GB": 1134 * GB,
    r"(Tesla|NVIDIA) T4": 320 * GB,
    r"NVIDIA A10": 600 * GB,
    r"NVIDIA A30": 933 * GB,
    r"NVIDIA A40": 696 * GB,
    r"NVIDIA RTX A6000": 768 * GB,
    r"(NVIDIA )?A100-(SXM4?|PCIE)-40GB": 1555 * GB,
    r"NVIDIA A100 80GB PCIe": 1935 * GB,
    r"(NVIDIA )?A100-SXM4?-80GB": 2039 * GB,
    r"NVIDIA L4": 300 * GB,
    r"NVIDIA L40S?": 864 * GB,
    r"NVIDIA RTX 6000 Ada Generation": 960 * GB,
    r"NVIDIA H100 PCIe": 2000 * GB,
    r"NVIDIA H100 80GB HBM3": 3350 * GB,
    r"NVIDIA H100 NVL": 3900 * GB,
    r"NVIDIA GH200 (120|480)GB": 4000 * GB,  # of its 96 GB of HBM3
    r"NVIDIA H200( NVL)?": 4800 * GB,
    r"NVIDIA B200": 8000 * GB,
    r"(NVIDIA )?GeForce RTX 2080 Ti": 616 * GB,
    r"(NVIDIA )?GeForce RTX 3090": 936 * GB,
    r"(NVIDIA )?GeForce RTX 3090 Ti": 1008 * GB,
    r"(NVIDIA )?GeForce RTX 4090": 1008 * GB,
    r"(NVIDIA )?GeForce RTX 5090": 1792 * GB,
}


def images_per_second_at_roofline(
    stem: Stem,
    resolution: int,
    device: str,
    dtype: torch.dtype = torch.bfloat16,
    tier: Tier = "eager",
) -> float | None:
    """The speed of training at which one GPU's memory would be busy all the time.

    Args:
        stem: of the network.
        resolution: side in pixels of its input.
        device: its name, as `torch.cuda.get_device_name` gives it.
        dtype: of activations.
        tier: which passes are counted, see this module.

    Returns:
        images a second, or None if the bandwidth of the device is not known.
    """
    bandwidth = bytes_per_second(device)
    return bandwidth and bandwidth / bytes_per_image(stem, resolution, dtype, tier)


def bytes_per_second(device: str) -> float | None:
    """The peak bandwidth of the memory of a device of that name; None for one not known."""
    found = (value for name, value in DEVICES.items() if re.fullmatch(name, device))
    return next(found, None)


def bytes_per_image(
    stem: Stem,
    resolution: int,
    dtype: torch.dtype = torch.bfloat16,
    tier: Tier = "eager",
) -> float:
    """Bytes that one image of a training step moves between a GPU and its memory."""
    return dtype.itemsize * values_per_image(stem, resolution)[tier]


@functools.cache
def values_per_image(stem: Stem, resolution: int) -> dict[Tier, float]:
    """Values that one image moves in a training step, from the shapes that layers really see."""
    with torch.device("meta"):  # where tensors have shapes and nothing is computed
        model = build_model(Model(stem=stem), seed=0)
        images = torch.empty(2, 3, resolution, resolution)
    totals: dict[Tier, float] = dict.fromkeys(TIERS, 0.0)

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        size_in, size_out = inputs[0].numel(), output.numel()
        moved = values_of(module, size_in, size_out)
        if module is model.conv1:
            moved = [values - size_in - size_out for values in moved]
        for tier, values in zip(TIERS, moved, strict=True):
            totals[tier] += values / len(images)

    for module in model.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        model(images)
    return totals


def values_of(module: nn.Module, size_in: int, size_out: int) -> list[int]:
    """Values that one call of `module` itself moves in a training step, for each of `TIERS`."""
    match module:
        case nn.Conv2d():
            return [3 * size_in + 3 * size_out] * 3
        case nn.BatchNorm2d():
            return [8 * size_out, 7 * size_out, 2 * size_out]
        case nn.ReLU():
            return [5 * size_out, size_out, 0]
        case Bottleneck():
            shortcut = 0 if module.downsample else size_out
            return [3 * size_out + 3 * size_in, shortcut + 3 * size_in, 3 * size_out + size_in]
        case nn.MaxPool2d() | nn.AdaptiveAvgPool2d():
            return [2 * size_in + 2 * size_out] * 3
    return [0, 0, 0]
