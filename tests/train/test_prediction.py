"""How images are decoded ahead of the model, and where the model is."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from train.prediction import ahead, local_devices


def test_no_more_than_a_few_items_are_begun_ahead_of_their_taker() -> None:
    """So a folder of any size takes the memory of a few batches."""
    begun: list[int] = []

    def items() -> Any:
        for number in range(10_000):
            begun.append(number)
            yield number

    with ThreadPoolExecutor(3) as threads:
        taken = ahead(lambda number: 2 * number, items(), threads, depth=10)
        for expected in range(100):
            assert next(taken) == 2 * expected
            assert len(begun) <= expected + 12
        taken.close()


def test_images_are_decoded_while_the_model_is_busy() -> None:
    started = threading.Event()

    def decode(number: int) -> int:
        if number == 5:
            started.set()
        return number

    with ThreadPoolExecutor(2) as threads:
        decoded = ahead(decode, range(20), threads, depth=8)
        assert next(decoded) == 0
        assert started.wait(10)


def test_cpu_has_the_granted_threads_and_one_replica() -> None:
    if torch.cuda.is_available():
        assert len(local_devices()) == torch.cuda.device_count()
    else:
        assert local_devices() == [torch.device("cpu")]
