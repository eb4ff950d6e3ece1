"""Reading and writing an archive of images in CIFAR-10's or CIFAR-100's layout, as published.

Each is a tar of pickled batches. Nothing of them is run (train/pickles.py) and nothing is unpacked
to disk (train/members.py); nothing at all is looked into unless the MD5 is the one asked for.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import stat
import tarfile
import zlib
from dataclasses import dataclass
from gzip import GzipFile
from pathlib import Path
from typing import Any

import numpy as np

from configs.archives import LARGEST_ARCHIVE_BYTES, MOST_CLASSES, PUBLISHED
from train.batchpickles import read_pickle
from train.errors import RequestError
from train.files import whole_file
from train.members import DamagedError, read_members

SIDE = 32
PIXELS = 3 * SIDE * SIDE
IMAGES_PER_BATCH = 50_000  # that write_archive writes: 154 MB, within what a member may have
LONGEST_CLASS_NAME = 200  # characters


@dataclass(frozen=True)
class Layout:
    """Where an archive of this kind has what; `train` is a pattern of names."""

    folder: str
    train: str
    test: str
    meta: str
    labels: bytes
    class_names: bytes

    def has(self, name: str) -> bool:
        """Whether the member called `name` is one of this layout."""
        folder, _, rest = name.rpartition("/")
        pattern = rf"{self.train}|{re.escape(self.test)}|{re.escape(self.meta)}"
        return folder == self.folder and re.fullmatch(pattern, rest, re.ASCII) is not None


CIFAR10 = Layout(
    folder="cifar-10-batches-py",
    train=r"data_batch_\d{1,9}",
    test="test_batch",
    meta="batches.meta",
    labels=b"labels",
    class_names=b"label_names",
)
CIFAR100 = Layout(
    folder="cifar-100-python",
    train="train",
    test="test",
    meta="meta",
    labels=b"fine_labels",
    class_names=b"fine_label_names",
)


@dataclass(frozen=True)
class Images:
    """One split: `pixels` uint8 (N, 32, 32, 3), R G B; `labels` int64 (N,)."""

    pixels: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Archive:
    """What the archive holds, in the order in which it holds it."""

    train: Images
    test: Images
    classes: list[str]
    md5: str


def read_archive(path: Path, expected_md5: str) -> Archive:
    """All images of the archive at `path`.

    Args:
        path: the `.tar.gz` as downloaded, or one made in the same layout.
        expected_md5: 'official', for an archive with a published name, 'none' or 32 hex digits.

    Raises:
        RequestError: missing, unreadable, of another MD5, truncated or not such an archive.
    """
    packed = read_packed(path)
    md5 = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    check_md5(path, md5, expected_md5)
    try:
        return parse(packed, md5)
    except RequestError as error:
        raise RequestError(f"{path}: {error}. Bring the archive again{source(path)}") from None
    except (DamagedError, zlib.error) as error:
        raise RequestError(
            f"{path} ({len(packed):,} bytes) is truncated or damaged ({error}). "
            f"Bring the archive again{source(path)}"
        ) from None


def source(path: Path) -> str:
    """Where an archive of this name comes from, as the end of a sentence; empty if nobody knows."""
    published = PUBLISHED.get(path.name)
    return f" from {published.url}" if published else ""


def read_packed(path: Path) -> bytes:
    """The bytes of the file at `path`; RequestError when it is missing, too large or unreadable."""
    try:
        # Of a FIFO or a device even the opening may have effects, or never end.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise RequestError(f"{path} is no regular file: put the archive there as a file")
        if status.st_size > LARGEST_ARCHIVE_BYTES:
            raise RequestError(
                f"{path} has {status.st_size:,} bytes, and {LARGEST_ARCHIVE_BYTES:,} are the most "
                "that an archive may have: leave images out"
            )
        with path.open("rb") as file:
            return file.read(status.st_size)
    except FileNotFoundError:
        advice = f"bring it{source(path)} and" if source(path) else "set data.archive, or"
        raise RequestError(f"data.root has no {path.name}: {advice} put it at {path}") from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None


def check_md5(path: Path, md5: str, expected: str) -> None:
    """Raise RequestError unless `md5` is the `expected` one."""
    wanted = PUBLISHED[path.name].md5 if expected == "official" else expected
    if wanted not in ("none", md5):
        raise RequestError(
            f"{path} has MD5 {md5}, but data.md5 asks for {wanted}"
            f"{' (the official archive)' if expected == 'official' else ''}: "
            f"bring it again{source(path)}, or, if this is the archive you mean, "
            f"set data.md5 to {md5}"
        )


def parse(packed: bytes, md5: str) -> Archive:
    """The archive in `packed`; RequestError, without the path, where it is not one.

    Raises:
        DamagedError, zlib.error: it is truncated or no `.tar.gz`.
    """
    parts: dict[str, Images] = {}
    metas: dict[str, dict[bytes, Any]] = {}
    layouts: set[Layout] = set()

    def layout_of(name: str) -> Layout | None:
        return next((each for each in (CIFAR10, CIFAR100) if each.has(name)), None)

    for path, content in read_members(packed, lambda path: layout_of(path) is not None):
        layout = layout_of(path)
        assert layout, "only members of a layout are asked for"
        layouts.add(layout)
        name = path.rpartition("/")[2]
        try:
            batch = read_pickle(content)
            if name == layout.meta:
                metas[name] = batch
            else:
                parts[name] = images_of(batch, layout)
        except RequestError as error:
            raise RequestError(f"member {path} is refused: {error}") from None

    if len(layouts) > 1:
        raise RequestError(f"it has both {CIFAR10.folder} and {CIFAR100.folder}")
    layout = layouts.pop() if layouts else CIFAR10
    train_names = sorted((name for name in parts if name != layout.test), key=batch_number)
    for name, is_there in (
        (layout.meta, layout.meta in metas),
        (layout.test, layout.test in parts),
        ("data_batch_1" if layout is CIFAR10 else layout.train, bool(train_names)),
    ):
        if not is_there:
            raise RequestError(f"it has no member {layout.folder}/{name}")
    classes = classes_of(metas[layout.meta], layout)
    for name, images in parts.items():
        if not 0 <= images.labels.min() <= images.labels.max() < len(classes):
            raise RequestError(
                f"member {layout.folder}/{name} has labels outside its {len(classes)} classes"
            )
    train = [parts[name] for name in train_names]
    return Archive(
        train=Images(
            pixels=np.concatenate([part.pixels for part in train]),
            labels=np.concatenate([part.labels for part in train]),
        ),
        test=parts[layout.test],
        classes=classes,
        md5=md5,
    )


def batch_number(name: str) -> tuple[int, str]:
    """What batches are ordered by: data_batch_2 comes before data_batch_10."""
    return int(re.sub(r"\D", "", name) or 0), name


def classes_of(meta: dict[bytes, Any], layout: Layout) -> list[str]:
    """The names of the classes; RequestError where they are not a list of short texts."""
    names = meta.get(layout.class_names)
    if isinstance(names, list) and 0 < len(names) <= MOST_CLASSES:
        texts = [class_name(name) for name in names]
        if all(texts):
            return texts
    raise RequestError(
        f"member {layout.folder}/{layout.meta} has no list of class names, in UTF-8, as "
        f"{layout.class_names.decode()}"
    )


def class_name(name: object) -> str:
    """The name of a class as text; empty where it is none that a table can show."""
    if not isinstance(name, str | bytes) or len(name) > LONGEST_CLASS_NAME:
        return ""
    text = name.decode(errors="surrogateescape") if isinstance(name, bytes) else name
    return text if text.isprintable() else ""


def images_of(batch: dict[bytes, Any], layout: Layout) -> Images:
    """The images of one batch; RequestError where shape, type or labels are not the layout's."""
    rows, labels = batch.get(b"data"), batch.get(layout.labels)
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (PIXELS,):
        raise RequestError(f"it has no uint8 rows of {PIXELS} values as data")
    if not isinstance(labels, list) or len(labels) != len(rows) or not len(rows):
        raise RequestError(f"it has not one of {layout.labels.decode()} for each of its images")
    if not all(isinstance(label, int) and 0 <= label < MOST_CLASSES for label in labels):
        raise RequestError("it has labels that are no whole numbers from 0")
    pixels = rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Images(np.ascontiguousarray(pixels), np.asarray(labels, dtype=np.int64))


def write_archive(
    path: Path, train: Images, test: Images, classes: list[str], *, replace: bool = True
) -> None:
    """Write the two splits at `path` in CIFAR-10's layout, whole or not at all.

    Equal images give equal bytes: no time stamps.

    Raises:
        OSError: the file cannot be written, or (FileExistsError) is not to replace what is there.
    """
    members: dict[str, dict[str, Any]] = {"batches.meta": {"label_names": classes}}
    for number, start in enumerate(range(0, len(train.labels), IMAGES_PER_BATCH), start=1):
        part = slice(start, start + IMAGES_PER_BATCH)
        members[f"data_batch_{number}"] = batch_of(train.pixels[part], train.labels[part])
    members["test_batch"] = batch_of(test.pixels, test.labels)

    with (
        whole_file(path, replace=replace) as raw,
        GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, content in members.items():
            data = pickle.dumps(content, protocol=3)  # the first that has bytes
            info = tarfile.TarInfo(f"{CIFAR10.folder}/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def batch_of(pixels: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """What a batch of CIFAR-10 holds: rows of 1,024 red, green, then blue values, and labels."""
    rows = pixels.transpose(0, 3, 1, 2).reshape(-1, PIXELS)
    return {"data": np.ascontiguousarray(rows), "labels": labels.tolist()}
