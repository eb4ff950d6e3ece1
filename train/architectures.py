"""Which network a checkpoint is of, when it is not this ResNet-50."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from train.errors import printable

# Names that give other networks away, whatever stands before them.
FOREIGN = (
    (r"(^|\.)(cls_token|class_token|patch_embed\.|embeddings\.patch_embeddings\.)", "a ViT"),
    (r"(^|\.)relative_position_bias_table$", "a Swin transformer"),
    (r"(^|\.)(downsample_layers\.|stages\.\d+\.(blocks\.)?\d+\.(dwconv|conv_dw))", "a ConvNeXt"),
    (r"(^|\.)(conv_stem|_conv_stem)\.weight$", "an EfficientNet or MobileNet"),
    (r"(^|\.)features\.(conv0|denseblock1)\.", "a DenseNet"),
    (r"(^|\.)features\.\d+\.", "a VGG, AlexNet, MobileNet or EfficientNet"),
    (r"(^|\.)visual\.(conv1|layer1)\.", "a CLIP model"),
    (r"(^|\.)(Mixed_|Conv2d_)", "an Inception"),
    (r"(^|\.)(encoder_q|online_net|encoder\.0|target_net)\.", "a self-supervised pair of networks"),
)
DEEP_STEM = re.compile(r"(^|\.)(conv1\.0|stem\.0)\.weight$")
BLOCKS = {
    (2, 2, 2, 2): ("ResNet-18", "ResNet-26"),
    (3, 4, 6, 3): ("ResNet-34", "ResNet-50"),
    (3, 4, 23, 3): ("ResNet with blocks of two convolutions", "ResNet-101"),
    (3, 8, 36, 3): ("ResNet with blocks of two convolutions", "ResNet-152"),
}
KERNELS = {(3, 3): "cifar", (7, 7): "imagenet"}


def foreign_network(names: Collection[str]) -> str:
    """The refusal of entries among which there is no first convolution of a ResNet."""
    if any(DEEP_STEM.search(name) for name in names):
        return (
            "it is a ResNet with a stem of three convolutions (resnet50d, resnet50c, ...), and the "
            "model is torchvision's ResNet-50: give the weights of a plain resnet50"
        )
    for pattern, what in FOREIGN:
        if found := next((name for name in names if re.search(pattern, name)), None):
            return f"it is {what} (it has {printable(found)}): give the weights of a ResNet-50"
    listed = ", ".join(printable(name, 60) for name in list(names)[:4])
    return f"it has no conv1.weight of a ResNet under any known prefix; its first entries: {listed}"


def other_resnet(entries: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """What kind of ResNet `entries` are, under torchvision's names, where it is not `wanted`'s.

    None: no other kind that is known.
    """
    if any(re.search(r"\.(se|se_layer|se_module)\.", name) for name in entries):
        return "it is an SE-ResNet (squeeze and excitation)"
    if any(re.search(r"downsample\.1\.weight$", n) and t.ndim == 4 for n, t in entries.items()):
        return "it is a ResNet whose shortcuts pool first (resnet50d, ...)"
    return depth_of(entries) or width_of(entries) or stem_of(entries, wanted)


def depth_of(entries: Mapping[str, Tensor]) -> str | None:
    """Another depth than ResNet-50's, from the number of blocks."""
    counts = []
    for layer in range(1, 5):
        found = (re.match(rf"layer{layer}\.(\d{{1,3}})\.", name) for name in entries)
        blocks = {int(match.group(1)) for match in found if match}
        counts.append(len(blocks))
    if 0 in counts:
        return None  # what is missing is told entry by entry
    has_bottlenecks = any(name.endswith(".conv3.weight") for name in entries)
    names = BLOCKS.get((counts[0], counts[1], counts[2], counts[3]))
    if names and names[has_bottlenecks] == "ResNet-50":
        return None
    told = names[has_bottlenecks] if names else "ResNet of another depth"
    return f"it is a {told} ({', '.join(map(str, counts))} blocks)"


def width_of(entries: Mapping[str, Tensor]) -> str | None:
    """Wide or grouped blocks, from the second convolution of the first one."""
    weight = entries.get("layer1.0.conv2.weight")
    if weight is None or weight.ndim != 4 or weight.shape[:2] == (64, 64):
        return None
    outputs, inputs = weight.shape[:2]
    if 0 < inputs < outputs:
        return f"it is a ResNeXt-50 ({outputs // inputs} groups)"
    if outputs == inputs and outputs > 64:
        return f"it is a wide ResNet-50 ({outputs} channels in the first block)"
    return None


def stem_of(entries: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """The other stem, or another number of channels of the images."""
    own, weight = wanted["conv1.weight"], entries.get("conv1.weight")
    if weight is None or weight.ndim != 4 or weight.shape == own.shape:
        return None
    stem = KERNELS.get((weight.shape[2], weight.shape[3]))
    if weight.shape[:2] == own.shape[:2] and stem:
        return f"it has the stem of model.stem {stem}: set model.stem to {stem}"
    if weight.shape[1] != own.shape[1]:
        return f"it takes images of {weight.shape[1]} channels, not {own.shape[1]}"
    return None
