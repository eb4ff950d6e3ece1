"""How many images a second a GPU's memory lets a ResNet-50 train on.

A training step of ResNet-50 in bf16 moves its feature maps far more often than its arithmetic needs
time: on current GPUs the memory is the limit, not the arithmetic. The bytes of an image are counted
kernel by kernel at 224 px: each convolution, batch norm, ReLU and addition reads its inputs and
writes its output once a pass; a batch norm reads its input twice forwards, and backwards both its
input and the gradient twice. They grow with the number of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

# MB an image at 224 px, bf16, forwards and backwards.
MEGABYTES = {
    "eager": 469.0,  # every convolution, norm, ReLU and addition is a kernel of its own
    "compiled": 345.0,  # norm, ReLU and addition in one kernel
    "fused": 226.0,  # and inside the convolutions, which no stock PyTorch does
}
GIGAFLOP = 24.3  # an image at 224 px: three times 4.09 G multiply-adds


@dataclass(frozen=True)
class Device:
    """What a GPU moves and computes at best, as a copy and a matrix product in bf16 find it."""

    terabytes_per_second: float
    teraflops: float


# By what torch calls them. H200: measured on one; A100 and H100: as published, scaled alike.
DEVICES = {
    "H200": Device(4.3, 788),
    "H100": Device(3.0, 700),
    "A100": Device(1.7, 260),
}


def find(name: str) -> Device | None:
    """What is known of a device by its full name, if anything."""
    return next((known for key, known in DEVICES.items() if key in name), None)


def images_per_second(device: Device, resolution: int, kernels: str) -> float:
    """The most images a second of `resolution` px, for one way to split the work into kernels."""
    share = (resolution / 224) ** 2
    by_memory = device.terabytes_per_second * 1e6 / (MEGABYTES[kernels] * share)
    by_arithmetic = device.teraflops * 1e3 / (GIGAFLOP * share)
    return min(by_memory, by_arithmetic)
