"""Checkpoint files of any container, read whole without trusting anything that they claim.

A file is told by its content: safetensors, torch's zip, or torch's older format of pickles in a row
("legacy"). It is read once, into memory; what is checked, hashed and loaded are the same bytes.
Nothing is allocated because a file says so: all sizes are compared with what is there first.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from train.admitted import StandIn
from train.errors import RequestError, first_line, printable
from train.pickles import Plan, Value, plan

# A ResNet-50 in float64 with Adam's state and an average has 0.8 GB.
LARGEST_FILE = 2**30
LARGEST_PICKLE = 2**24
LARGEST_HEADER = 2**22
LARGEST_DIRECTORY = 2**21

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
FOREIGN = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file that it stands for: git lfs pull",
    ),
    (b"<", "a web page or XML, perhaps the answer to a download that failed"),
    (b"\x1f\x8b", "packed with gzip: unpack it first"),
    (b"\xfd7zXZ\x00", "packed with xz: unpack it first"),
    (b"BZh", "packed with bzip2: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras), not one of PyTorch"),
    (b"\x93NUMPY", "a NumPy array, not a checkpoint of PyTorch"),
    (b"\x80", "a pickle that torch.save did not write: save the weights with torch.save"),
)


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    `content`: as it was saved, tensors on the CPU; what is neither a tensor nor a plain value is an
    empty `StandIn`. `metadata`: the texts in a safetensors header, empty for other containers.
    `container`: 'safetensors', 'zip' or 'legacy'. `sha256`: of the file, hex digits. `size`: in
    bytes.
    """

    content: Mapping[Any, Any]
    metadata: Mapping[str, str]
    container: str
    sha256: str
    size: int


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the checkpoint at `path`, running no code from it, in memory of a few times its size.

    Raises:
        RequestError: missing, no regular file, too large to be one, damaged, of an unknown format,
            or holding more than tensors and plain values. The text begins with `path`.
    """
    data = read_file(path)
    try:
        container = recognise(data)
        content, metadata = READERS[container](data)
        if not isinstance(content, Mapping):
            raise RequestError("it holds no dictionary of tensors")
    except RequestError as error:
        raise RequestError(f"{path} is no checkpoint that can be read safely: {error}") from None
    digest = hashlib.sha256(data).hexdigest()
    return Checkpoint(content, metadata, container, digest, len(data))


def read_file(path: Path) -> bytes:
    """All bytes of a regular file; a pipe or a device is refused and never waited for.

    Raises:
        RequestError: there is none, it cannot be read, or it is larger than any checkpoint.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise RequestError(f"{path} is no regular file: name a checkpoint file")
        with os.fdopen(descriptor, "rb") as file:
            if status.st_size > LARGEST_FILE:
                raise RequestError(
                    f"{path} has {status.st_size:,} bytes, and no checkpoint of a ResNet-50 has "
                    f"more than {LARGEST_FILE:,}: save its state_dict alone"
                )
            data = file.read(status.st_size)
    except FileNotFoundError:
        raise RequestError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"{path} cannot be read ({reason})") from None
    if not data:
        raise RequestError(f"{path} is empty: bring it again")
    return data


def recognise(data: bytes) -> str:
    """Which container `data` is, by its first bytes.

    Raises:
        RequestError: none that is known, with what it is instead where that can be seen.
    """
    if data.startswith(b"PK\x03\x04"):
        return "zip"
    if data.startswith(LEGACY_MAGIC):
        return "legacy"
    if data[8:9] == b"{":
        return "safetensors"
    for start, what in FOREIGN:
        if data.startswith(start):
            raise RequestError(f"it is {what}")
    if data[257:262] == b"ustar":
        raise RequestError("it is a tar archive: unpack it, or save the weights with torch.save")
    raise RequestError(
        "it is neither safetensors nor written by torch.save, or its beginning is damaged"
    )


def read_safetensors(data: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors by name, and the header's texts."""
    length = int.from_bytes(data[:8], "little")
    if length > min(LARGEST_HEADER, len(data) - 8):
        raise RequestError(f"its header claims {length:,} bytes of a file of {len(data):,}")
    try:
        texts = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        metadata = {name: text for name, text in texts.items() if isinstance(text, str)}
        return safetensors.torch.load(data), metadata
    except Exception as error:  # the library and the parser of its header raise many kinds
        raise RequestError(f"it is damaged ({first_line(error)})") from None


def read_zip(data: bytes) -> tuple[Any, dict[str, str]]:
    """What torch.save wrote as a zip archive.

    torch gets an archive made anew of the members that were checked, so that its reader and
    Python's cannot see different ones, and what it reads has the CRC-32 that it was written with.
    """
    try:
        guarded = _Guarded(data)
        with zipfile.ZipFile(guarded) as archive:
            guarded.limit = len(data)
            pickled, members = check_members(archive, len(data))
            prefix = pickled.filename.removesuffix("data.pkl")
            pickle = archive.read(pickled)
            found = plan(io.BytesIO(pickle))
            clean = io.BytesIO()
            with zipfile.ZipFile(clean, "w") as copy:
                copy.writestr("checkpoint/data.pkl", pickle)
                copy.writestr("checkpoint/version", "3\n")
                if order := members.get(f"{prefix}byteorder"):
                    copy.writestr("checkpoint/byteorder", archive.read(order))
                for key, storage in found.storages.items():
                    name = f"{prefix}data/{key}"
                    # What is read counts, not what a header says: torch does not compare the two.
                    values = archive.read(members[name]) if name in members else b""
                    if len(values) != storage.nbytes:
                        raise RequestError(
                            f"member {printable(name)} has {len(values):,} of "
                            f"{storage.nbytes:,} bytes"
                        )
                    copy.writestr(f"checkpoint/data/{key}", values)
    except RequestError:
        raise
    except Exception as error:  # a damaged archive may raise anything
        raise RequestError(f"its archive is damaged ({first_line(error)})") from None
    clean.seek(0)
    return load(clean, found), {}


def check_members(
    archive: zipfile.ZipFile, size: int
) -> tuple[zipfile.ZipInfo, dict[str, zipfile.ZipInfo]]:
    """The member with the pickle, and all members by name; they hold no more than the file does."""
    members = {info.filename: info for info in archive.infolist()}
    pickles = [info for name, info in members.items() if name.endswith("data.pkl")]
    if any(name.endswith("constants.pkl") for name in members):
        raise RequestError("it is a TorchScript archive: save the module's state_dict instead")
    if any(name.endswith(".npy") for name in members):
        raise RequestError("it is an archive of NumPy arrays, not a checkpoint of PyTorch")
    if len(pickles) != 1:
        raise RequestError("it is a zip archive that torch.save did not write")
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise RequestError("its members are compressed, which torch.save never does: unpack it")
    if sum(info.file_size for info in archive.infolist()) > size:
        raise RequestError("its members claim more bytes than the file has")
    if pickles[0].file_size > LARGEST_PICKLE:
        raise RequestError(f"its pickle has {pickles[0].file_size:,} bytes")
    return pickles[0], members


def read_legacy(data: bytes) -> tuple[Any, dict[str, str]]:
    """What torch.save wrote before torch 1.6: five pickles, then the storages' values."""
    file = io.BytesIO(data[:LARGEST_PICKLE])
    plans = [plan(file) for _ in range(5)]
    found, names = plans[3], plans[4].result
    if plans[1].result != 1001 or any(part.storages for part in (*plans[:3], plans[4])):
        raise RequestError("its first pickles are not those of torch.save")
    keys = names.items if isinstance(names, Value) else []
    if not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(found.storages):
        raise RequestError("its list of storages is not that of its tensors")
    position = file.tell()
    for key in keys:
        storage = found.storages[key]
        numel = int.from_bytes(data[position : position + 8], "little", signed=True)
        position += 8 + storage.nbytes
        if numel != storage.numel or position > len(data):
            raise RequestError(
                f"it is cut off or damaged: storage {printable(key, 20)} has not all of its "
                f"{storage.nbytes:,} bytes"
            )
    if position != len(data):
        raise RequestError(f"it has {len(data) - position:,} bytes too many")
    return load(io.BytesIO(data), found), {}


def load(file: io.BytesIO, found: Plan) -> Any:
    """What torch makes of a file whose pickles are `found` to be sound."""
    stand_ins: list[Any] = [(StandIn, name) for name in found.stand_ins]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")  # on a file's age, or what is then refused
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        raise RequestError(first_line(error)) from None


class _Guarded(io.BytesIO):
    """Bytes of which no more is read at once than a directory of believable size.

    `zipfile` makes objects out of a whole directory, whose size is the file's word.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._size = len(data)
        self.limit = LARGEST_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        """As always, up to the limit."""
        left = self._size - self.tell()
        if (left if size is None or size < 0 else min(size, left)) > self.limit:
            raise RequestError(f"its directory has more than {self.limit:,} bytes")
        return super().read(size)


READERS = {"safetensors": read_safetensors, "zip": read_zip, "legacy": read_legacy}
