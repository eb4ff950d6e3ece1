"""The batched image path against Pillow and against plain slicing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from configs.schema import Data
from tests.train.steps import waiting_refused
from train.dataset import load_dataset
from train.images import channels, crop, flip, resize, to_input

RAW = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


@pytest.fixture(scope="session")
def photos(request: pytest.FixtureRequest) -> Tensor:
    """64 images, uint8 (64, 32, 32, 3): random ones, which hold every pair of grey levels."""
    return torch.randint(256, (64, 32, 32, 3), dtype=torch.uint8, generator=_generator())


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pillow(images: Tensor, resolution: int) -> np.ndarray:
    size = (resolution, resolution)
    resized = [Image.fromarray(image.numpy()).resize(size, Image.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in resized])


@pytest.mark.parametrize("resolution", [24, 32, 64, 160, 224])
def test_resize_equals_pillow_bit_for_bit_on_a_cpu(photos: Tensor, resolution: int) -> None:
    ours = to_input(photos, Data(**RAW), resolution)

    assert np.array_equal(ours.permute(0, 2, 3, 1).numpy(), pillow(photos, resolution))


@pytest.mark.parametrize("resolution", [24, 64, 160, 224])
def test_resize_in_floats_is_within_one_grey_level_of_pillow(
    photos: Tensor, resolution: int
) -> None:
    """The arithmetic of the GPU's path, done on the CPU."""
    ours = resize(photos.permute(0, 3, 1, 2).float(), resolution)

    difference = ours.permute(0, 2, 3, 1).numpy() - pillow(photos, resolution)
    assert np.abs(difference).max() <= 1.0 + 1e-4  # and the noise of float32


def test_real_images_take_the_same_path_as_pillow(real_cifar10: Path) -> None:
    """Crop, flip, resize and normalise, image by image, with Pillow and NumPy."""
    data = Data(root=str(real_cifar10), md5="none", train_images=50)
    images = load_dataset(data, torch.device("cpu")).train.images
    offsets = torch.randint(9, (50, 2), generator=_generator())
    flips = torch.rand(50, generator=_generator()) < 0.5

    ours = to_input(flip(crop(images, offsets, 4), flips), data, data.resolution)

    for index, (top, left) in enumerate(offsets.tolist()):
        padded = np.pad(images[index].numpy(), ((4, 4), (4, 4), (0, 0)))
        cut = padded[top : top + 32, left : left + 32]
        cut = cut[:, ::-1] if flips[index] else cut
        grey = np.asarray(Image.fromarray(cut).resize((224, 224), Image.BILINEAR))
        expected = (grey - np.asarray(data.mean)) / np.asarray(data.std)
        off = np.abs(ours[index].permute(1, 2, 0).numpy() - expected) * np.asarray(data.std)
        assert off.max() < 0.01  # grey levels


def test_crop_pads_with_zeros_before_normalisation() -> None:
    white = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    cut = crop(white, torch.tensor([[0, 8]]), 4)

    assert (cut[0, :4] == 0).all()
    assert (cut[0, :, 28:] == 0).all()
    assert (cut[0, 4:, :28] == 255).all()


def test_crop_in_the_middle_changes_nothing(photos: Tensor) -> None:
    middle = torch.full((64, 2), 4)

    assert torch.equal(crop(photos, middle, 4), photos)
    assert torch.equal(crop(photos, middle, 0), photos)


def test_flip_mirrors_only_the_chosen_images(photos: Tensor) -> None:
    flips = torch.arange(64) % 2 == 0
    mirrored = flip(photos, flips)

    assert torch.equal(mirrored[0, :, 0], photos[0, :, 31])
    assert torch.equal(mirrored[1], photos[1])


def test_input_is_normalised_and_channels_last(photos: Tensor) -> None:
    data = Data(resolution=32)
    batch = to_input(photos, data, data.resolution)

    assert batch.shape == (64, 3, 32, 32)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    expected = (float(photos[3, 5, 7, 2]) - 113.8575) / 51.255
    assert float(batch[3, 2, 5, 7]) == pytest.approx(expected, abs=1e-5)


def test_mean_and_std_are_copied_to_a_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy to a GPU makes the host wait, so that no batch but the first may make one."""
    data, images = Data(resolution=32, mean=[1.5, 2.5, 3.5]), torch.zeros(2, 32, 32, 3)
    first = to_input(images, data, data.resolution)
    monkeypatch.delattr(torch, "tensor")

    assert torch.equal(to_input(images, data, data.resolution), first)
    assert channels.cache_info().hits >= 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_makes_a_batch_without_waiting_and_within_one_grey_level(photos: Tensor) -> None:
    data, on_gpu = Data(resolution=224, **RAW), photos.cuda()
    to_input(on_gpu, data, data.resolution)
    with waiting_refused():
        ours = to_input(on_gpu, data, data.resolution)

    difference = ours.permute(0, 2, 3, 1).cpu().numpy() - pillow(photos, 224)
    assert np.abs(difference).max() <= 1.0 + 1e-3
