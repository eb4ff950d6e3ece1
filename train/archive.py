"""Reading and writing the CIFAR-10 archive as it is published: a tar of pickled batches.

Pickle can run code. The reader admits what the batches hold (arrays, bytes, strings, whole numbers,
lists, dictionaries) and nothing else, and takes members by name from memory, never to disk.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import ARCHIVE_URL, OFFICIAL_MD5
from train.errors import RequestError
from train.files import whole_file

FOLDER = "cifar-10-batches-py"
SIDE = 32
PIXELS = 3 * SIDE * SIDE
MAX_MEMBER_BYTES = 256 * 2**20  # the largest official member has 31 MB

ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


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


class BatchUnpickler(pickle.Unpickler):
    """Admits numpy arrays and plain values; anything else that a pickle names is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle calls `module.name`, if admitted; else RequestError."""
        if (module, name) not in ADMITTED:
            raise RequestError(f"its pickle asks for {module}.{name}, which no image batch needs")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_archive(path: Path, expected_md5: str) -> Archive:
    """All images of the archive at `path`.

    Args:
        path: the `.tar.gz` as downloaded.
        expected_md5: 'official', 'none' or 32 hex digits.

    Raises:
        RequestError: missing, unreadable, of another MD5, truncated or not such an archive.
    """
    packed = read_packed(path)
    md5 = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    check_md5(path, md5, expected_md5)
    try:
        return parse(packed, md5)
    except RequestError as error:
        raise RequestError(f"{path}: {error}. Bring the archive again from {ARCHIVE_URL}") from None
    except (EOFError, zlib.error, tarfile.TarError, gzip.BadGzipFile) as error:
        raise RequestError(
            f"{path} ({len(packed):,} bytes) is truncated or damaged ({error}). "
            f"Bring the archive again from {ARCHIVE_URL}"
        ) from None


def read_packed(path: Path) -> bytes:
    """The bytes of the file at `path`; RequestError when it is missing or unreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RequestError(
            f"data.root has no {path.name}: bring it from {ARCHIVE_URL} and put it at {path}"
        ) from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None


def check_md5(path: Path, md5: str, expected: str) -> None:
    """Raise RequestError unless `md5` is the `expected` one."""
    wanted = OFFICIAL_MD5 if expected == "official" else expected
    if wanted not in ("none", md5):
        raise RequestError(
            f"{path} has MD5 {md5}, but data.md5 asks for {wanted}"
            f"{' (the official archive)' if expected == 'official' else ''}: "
            f"bring it again from {ARCHIVE_URL}, or, if this is the archive you mean, "
            f"set data.md5 to {md5}"
        )


def parse(packed: bytes, md5: str) -> Archive:
    """The archive in `packed`; RequestError, without the path, where it is not one."""
    batches: dict[str, dict[bytes, Any]] = {}
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        for member in tar:
            folder, _, name = member.name.rpartition("/")
            if folder != FOLDER or not re.fullmatch(
                r"data_batch_\d|test_batch|batches\.meta", name
            ):
                continue
            if not member.isfile() or member.size > MAX_MEMBER_BYTES:
                raise RequestError(f"member {member.name} is no file of a believable size")
            stream = tar.extractfile(member)
            assert stream is not None, "isfile() was asked"
            batches[name] = unpickle(name, stream.read())

    train_names = sorted(name for name in batches if name.startswith("data_batch_"))
    absent = [name for name in ("batches.meta", "test_batch") if name not in batches]
    if absent or not train_names:
        absent += [] if train_names else ["data_batch_1"]
        raise RequestError(f"it has no member {FOLDER}/{absent[0]}")
    classes = classes_of(batches["batches.meta"])
    train = [images_of(name, batches[name], len(classes)) for name in train_names]
    return Archive(
        train=Images(
            pixels=np.concatenate([part.pixels for part in train]),
            labels=np.concatenate([part.labels for part in train]),
        ),
        test=images_of("test_batch", batches["test_batch"], len(classes)),
        classes=classes,
        md5=md5,
    )


def unpickle(name: str, content: bytes) -> dict[bytes, Any]:
    """The dictionary pickled in `content`; RequestError names the member."""
    try:
        batch = BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    except RequestError as error:
        raise RequestError(f"member {name} is refused: {error}") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise RequestError(f"member {name} is damaged ({type(error).__name__}: {error})") from None
    if not isinstance(batch, dict):
        raise RequestError(f"member {name} holds no dictionary")
    return batch


def classes_of(meta: dict[bytes, Any]) -> list[str]:
    """The names of the classes; RequestError where they are not a list of UTF-8 texts."""
    names = meta.get(b"label_names")
    try:
        if isinstance(names, list) and names:
            return [bytes.decode(name) for name in names]
    except (TypeError, UnicodeDecodeError):
        pass
    raise RequestError("member batches.meta has no list of class names, in UTF-8, as label_names")


def images_of(name: str, batch: dict[bytes, Any], num_classes: int) -> Images:
    """The images of one batch; RequestError where shape, type or labels are not CIFAR-10's."""
    rows, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (PIXELS,):
        raise RequestError(f"member {name} has no uint8 rows of {PIXELS} values")
    if not isinstance(labels, list) or len(labels) != len(rows) or not len(rows):
        raise RequestError(f"member {name} has not one label for each of its images")
    if not all(isinstance(label, int) and 0 <= label < num_classes for label in labels):
        raise RequestError(f"member {name} has labels outside its {num_classes} classes")
    pixels = rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Images(np.ascontiguousarray(pixels), np.asarray(labels, dtype=np.int64))


def write_archive(path: Path, train: Images, test: Images, classes: list[str]) -> None:
    """Write the two splits at `path` in the published layout, whole or not at all.

    Equal images give equal bytes: no time stamps.

    Raises:
        OSError: the file cannot be written.
    """
    meta = {b"label_names": [name.encode() for name in classes], b"num_vis": PIXELS}
    members = {"batches.meta": meta}
    for name, images in (("data_batch_1", train), ("test_batch", test)):
        rows = images.pixels.transpose(0, 3, 1, 2).reshape(-1, PIXELS)
        members[name] = {b"data": np.ascontiguousarray(rows), b"labels": images.labels.tolist()}

    with (
        whole_file(path) as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, content in members.items():
            data = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(f"{FOLDER}/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
