"""A hundred processes start together on one data folder; one of them reads, and writes the cache.

    python -m tests.drills.hundred_starts --processes 100

Each is a process of its own that loads the data set as a worker does, all at the same moment; each
notes when it reads the archive, writes the cache, or copies it to the node. The archive has as many
images as CIFAR-10, of random pixels. Without and with `data.local_copy`, and once more with all
made.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.archives import ARCHIVE_NAME
from configs.schema import Data
from tests.train import starts
from train.archive import Images, write_archive

TRAIN_IMAGES, TEST_IMAGES = 50_000, 10_000
CLASSES = [str(number) for number in range(10)]


def some_images(count: int, seed: int) -> Images:
    """Images that no compression makes small."""
    source = np.random.default_rng(seed)
    pixels = source.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return Images(pixels, source.integers(0, len(CLASSES), count))


def start(barrier: Any, outcomes: Any, *arguments: Any) -> None:
    """Load the data set when all are ready; puts the sum of its images, or what went wrong."""
    try:
        barrier.wait(300)
        outcomes.put(starts.load(*arguments))
    except Exception as error:  # whatever it is, the drill has to tell it
        outcomes.put(f"{type(error).__name__}: {error}")


def round_of(
    context: Any, processes: int, expected: int, due: Counter[str], *arguments: Any
) -> bool:
    """Start all, tell what they did, and say whether it is what is `due`."""
    *_, log = arguments
    log.unlink(missing_ok=True)
    barrier, outcomes = context.Barrier(processes + 1), context.Queue()
    started = [
        context.Process(target=start, args=(barrier, outcomes, *arguments))
        for _ in range(processes)
    ]
    for process in started:
        process.start()
    barrier.wait(300)
    began = time.monotonic()
    results = [outcomes.get(timeout=900) for _ in started]
    seconds = time.monotonic() - began
    for process in started:
        process.join()
    done = Counter(starts.recorded(log))
    failures = [result for result in results if result != expected]
    print(
        f"  {done['read_archive']} read the archive, {done['write_cache']} wrote a cache, "
        f"{done['copy_cache']} copied it, {len(failures)} failed; {seconds:.1f} s",
        flush=True,
    )
    for failure in failures:
        print(f"  {failure}", flush=True)
    return not failures and done == due


def main(arguments: Sequence[str]) -> int:
    """Run the drill; 0 if nobody failed and everything was done as often as it has to be."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.hundred_starts")
    parser.add_argument("--processes", type=int, default=100)
    options = parser.parse_args(arguments)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train.dataset"])
    train = some_images(TRAIN_IMAGES, 1)
    expected = int(train.pixels.sum(dtype=np.int64))
    is_well = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("data", "scratch"):
            (folder / part).mkdir()
        write_archive(folder / "data" / ARCHIVE_NAME, train, some_images(TEST_IMAGES, 2), CLASSES)
        del train
        shared = Data(root=str(folder / "data"), md5="none")
        local = shared.model_copy(update={"local_copy": True})
        for what, data, due in (
            ("nothing is made yet", shared, ["read_archive", "write_cache"]),
            ("the cache is there", shared, []),
            ("data.local_copy, the cache is there", local, ["copy_cache"]),
            ("data.local_copy, the copy is there", local, []),
        ):
            print(f"{options.processes} processes, {what}:", flush=True)
            arguments_of_all = (data, folder / "scratch", folder / "log")
            is_well &= round_of(
                context, options.processes, expected, Counter(due), *arguments_of_all
            )
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
