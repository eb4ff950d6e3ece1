"""Archives of images as the tests make them: good ones, and each part of one by itself."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from train.archive import CIFAR10, PIXELS, Images, write_archive
from train.cache import Split

ROWS = np.arange(3 * PIXELS, dtype=np.uint32).astype(np.uint8).reshape(3, PIXELS)
META = {b"label_names": [b"cat", b"dog"]}
BATCH = {b"data": ROWS, b"labels": [0, 1, 0]}
GOOD: dict[str, Any] = {"batches.meta": META, "data_batch_1": BATCH, "test_batch": BATCH}
END = bytes(1024)


def pickled(content: Any) -> bytes:
    """`content` as a member holds it; bytes are taken as they are."""
    return content if isinstance(content, bytes) else pickle.dumps(content, 2)


def member(name: str, content: bytes = b"", **header: Any) -> bytes:
    """A member of a tar; `header` overrides what its TarInfo says, such as `type` or `size`."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in header.items():
        setattr(info, key, value)
    head = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return head + content + bytes(-len(content) % 512)


def members(folder: str = CIFAR10.folder, **changed: Any) -> bytes:
    """The members of a good archive, some of them changed or, where None, left out."""
    kept = {name: content for name, content in (GOOD | changed).items() if content is not None}
    return b"".join(member(f"{folder}/{name}", pickled(each)) for name, each in kept.items())


def gzipped(tar: bytes) -> bytes:
    """`tar` as one gzip stream, quickly."""
    deflate = zlib.compressobj(1, wbits=31)
    return deflate.compress(tar) + deflate.flush()


def bomb(num_bytes: int) -> bytes:
    """A gzip stream of so many zeros, made by repeating one piece; its check sum is wrong."""
    piece = 16 * 2**20
    deflate = zlib.compressobj(9, wbits=31)
    head = deflate.compress(END) + deflate.flush(zlib.Z_FULL_FLUSH)
    part = deflate.compress(bytes(piece)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return head + part * (num_bytes // piece) + deflate.flush()


def write(path: Path, parts: Iterable[bytes] | None = None, **changed: Any) -> Path:
    """A `.tar.gz` at `path` of the given tar's parts, or of a good archive with changed members."""
    tar = b"".join(parts) if parts is not None else members(**changed)
    path.write_bytes(gzipped(tar + END))
    return path


def python2_batch() -> bytes:
    """`BATCH` as Python 2 and numpy 1 pickled the published archives."""
    raw = ROWS.tobytes()
    return b"".join(
        [
            b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03",
            b"cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x03M\x00\x0c\x86",
            b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNN",
            b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(raw)) + raw,
            b"tbU\x06labelsq\x08]q\x09(K\x00K\x01K\x00eU\x09filenamesq\x0a]q\x0b(U\x05a.pngq\x0c",
            b"U\x05b.pngU\x05c.pngeu.",
        ]
    )


def tar_by_tarfile(path: Path, contents: dict[str, bytes], **options: Any) -> Path:
    """An archive as people make one with Python's tarfile."""
    with tarfile.open(path, "w:gz", **options) as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5
            tar.addfile(info, io.BytesIO(content))
    return path


def write_grey(path: Path, train: list[int], test: list[int]) -> None:
    """An archive of images of one grey level each, all of the class 'grey'."""

    def images(levels: list[int]) -> Images:
        pixels = np.stack([np.full((32, 32, 3), level, dtype=np.uint8) for level in levels])
        return Images(pixels, np.zeros(len(levels), dtype=np.int64))

    write_archive(path, images(train), images(test), ["grey", "other"])


def levels(split: Split) -> list[int]:
    """The grey level of each image."""
    return split.images[:, 0, 0, 0].tolist()
