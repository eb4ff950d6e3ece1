"""Images through a trained model: decoded in threads ahead of the devices, told in their order.

Every local GPU has a replica of the model, and a batch goes to whichever is idle. The arithmetic is
fp32 everywhere, whatever the training's was, so that a confidence does not depend on the machine
(in bf16 it would have three digits); most of the time goes into decoding anyway.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import nn

from train import facts
from train.containers import read_checkpoint
from train.distributed import set_threads
from train.errors import RequestError
from train.facts import Usage
from train.images import to_input
from train.layouts import Network, find_network
from train.model import blank_model
from train.photos import Report, find_images, read_photo
from train.weights import broken_promise, reconcile

BATCH = 64
Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Prediction:
    """What the model says of the image `file`; `confidence` is a probability, from 0 to 1."""

    file: Path
    label: str
    confidence: float


class Predictor:
    """A trained model on one or more devices; several threads may ask it at once.

    Args:
        model: the network.
        usage: how it is used.
        devices: each gets a replica.
    """

    def __init__(self, model: nn.Module, usage: Usage, devices: list[torch.device]) -> None:
        self.usage = usage
        self.num_replicas = len(devices)
        self._idle: SimpleQueue[tuple[nn.Module, torch.device]] = SimpleQueue()
        for device in devices:
            self._idle.put((copy.deepcopy(model).eval().to(device), device))

    def logits(self, photos: np.ndarray) -> torch.Tensor:
        """The network's outputs for uint8 (B, 32, 32, 3): float32 (B, classes), on the CPU."""
        replica, device = self._idle.get()
        try:
            with torch.inference_mode():
                data, images = self.usage.data, torch.from_numpy(photos).to(device)
                logits: torch.Tensor = replica(to_input(images, data, data.resolution)).cpu()
                return logits
        finally:
            self._idle.put((replica, device))

    def predict(self, files: list[Path], photos: np.ndarray) -> list[Prediction]:
        """One prediction for each of `files`, whose images are `photos` uint8 (B, 32, 32, 3)."""
        confidences, best = self.logits(photos).softmax(dim=1).max(dim=1)
        labels = [self.usage.classes[index] for index in best.tolist()]
        return [Prediction(*each) for each in zip(files, labels, confidences.tolist(), strict=True)]


def read_model(path: Path, given: Mapping[str, Any]) -> Predictor:
    """The model in a checkpoint file, ready on all local GPUs or on the CPU.

    Args:
        path: a run's checkpoint, an export, or another ResNet-50.
        given: what the file does not say: classes, resolution, mean, std.

    Raises:
        RequestError: it cannot be read, does not fit, or something is not known.
    """
    checkpoint = read_checkpoint(path)
    if problem := broken_promise(path, checkpoint):
        raise RequestError(problem)
    try:
        network = find_network(checkpoint)
        said = {"stem": stem_of(network)} | facts.in_file(checkpoint, path)
        usage = facts.usage(said, given)
        model = blank_model(usage.model)
        account, accepted = reconcile(network, checkpoint, model.state_dict())
        if "fc.bias" in account.reinitialised:
            outputs = len(network.entries.get("fc.bias", ()))
            raise RequestError(f"it has {outputs} outputs, but {len(usage.classes)} classes")
    except RequestError as error:
        raise RequestError(f"{path} cannot be used: {error}") from None
    model.load_state_dict(accepted, strict=False)
    return Predictor(model, usage, local_devices())


def stem_of(network: Network) -> str:
    """The stem of a network, by the size of its first convolution."""
    first = network.entries.get("conv1.weight")
    return "cifar" if first is not None and first.shape[-1:] == (3,) else "imagenet"


def local_devices() -> list[torch.device]:
    """All GPUs that this process sees, else the CPU, with as many threads as it has cores."""
    set_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # three digits too
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.device("cuda", index) for index in range(count)] or [torch.device("cpu")]


def predict(predictor: Predictor, sources: Iterable[Path], report: Report) -> Iterator[Prediction]:
    """What `predictor` says of all images in `sources`, in their order.

    However many there are, only a few batches are in memory. What cannot be read is told to
    `report`, with the reason, and left out.
    """

    def read(path: Path) -> tuple[Path, np.ndarray | str]:
        try:
            return path, read_photo(path)
        except RequestError as error:
            return path, str(error)

    def readable() -> Iterator[tuple[Path, np.ndarray]]:
        files = find_images(sources, report)
        for path, photo in ahead(read, files, decoders, depth=2 * BATCH * predictor.num_replicas):
            if isinstance(photo, str):
                report(path, photo)
            else:
                yield path, photo

    def ask(batch: list[tuple[Path, np.ndarray]]) -> list[Prediction]:
        files, photos = zip(*batch, strict=True)
        return predictor.predict(list(files), np.stack(photos))

    workers = torch.get_num_threads()
    with pool(workers) as decoders, pool(predictor.num_replicas) as askers, strict_about_bombs():
        batches = in_batches(readable())
        for predictions in ahead(ask, batches, askers, depth=predictor.num_replicas):
            yield from predictions


@contextlib.contextmanager
def pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads; what they have not begun is dropped when the block is left."""
    executor = ThreadPoolExecutor(workers)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def strict_about_bombs() -> Iterator[None]:
    """Images of more pixels than Pillow thinks believable are errors; its other remarks are not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def ahead(
    work: Callable[[Item], Done], items: Iterable[Item], threads: ThreadPoolExecutor, *, depth: int
) -> Iterator[Done]:
    """`work` of each item, in order, done by `threads` up to `depth` items ahead of its taker."""
    begun: deque[Future[Done]] = deque()
    for item in items:
        begun.append(threads.submit(work, item))
        if len(begun) > depth:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def in_batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items in lists of `BATCH`; the last one has what is left."""
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch
