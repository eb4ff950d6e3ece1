"""Checkpoint files made byte by byte: the sound one, and those that somebody would attack with."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping

import torch

from train.containers import LARGEST_DIRECTORY, LEGACY_MAGIC
from train.pickles import MOST_INSTRUCTIONS

PROTOCOL = b"\x80\x02"
STOP = b"."
NONE = b"N"


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def row(*items: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(items) + b"t"


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + row(*arguments) + b"R"


def mapping(**items: bytes) -> bytes:
    return b"}" + b"".join(text(name) + value + b"s" for name, value in items.items())


def storage(numel: int, *more: bytes) -> bytes:
    kind = named("torch", "FloatStorage")
    return row(text("storage"), kind, text("0"), text("cpu"), integer(numel), *more) + b"Q"


def tensor(values: bytes, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    hooks = call("collections", "OrderedDict")
    shape = (row(*map(integer, numbers)) for numbers in (size, stride))
    return call(
        "torch._utils", "_rebuild_tensor_v2", values, integer(offset), *shape, b"\x89", hooks
    )


def zipped(
    value: bytes,
    values: bytes = b"",
    *,
    compression: int = zipfile.ZIP_STORED,
    members: Mapping[str, bytes] | None = None,
) -> bytes:
    """A file as torch.save writes it, of the instructions for a value, and one storage."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", PROTOCOL + value + STOP)
        archive.writestr("archive/data/0", values)
        for name, content in (members or {}).items():
            archive.writestr(name, content)
    return file.getvalue()


def legacy(
    value: bytes, numel: int, values: bytes, keys: bytes = b"](" + text("0") + b"e"
) -> bytes:
    """A file as torch.save wrote it before torch 1.6."""
    parts = (integer(1001), mapping(), value, keys)
    pickles = b"".join(PROTOCOL + part + STOP for part in parts)
    return LEGACY_MAGIC + pickles + struct.pack("<q", numel) + values


def safetensors_file(header: bytes, values: bytes = b"", *, claimed: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if claimed is None else claimed) + header + values


def saved(content: object, *, is_zip: bool = True, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    return file.getvalue()


def doubled(levels: int, innermost: bytes, wrap: bytes) -> bytes:
    """A value that holds the one before twice, so many times over: 2 ** levels of the first."""
    value = innermost
    for level in range(levels):
        number = struct.pack("<I", level)
        value += b"r" + number + b"j" + number + wrap
    return value


def repeated(times: int, function: bytes, shared: bytes, *more: bytes) -> bytes:
    """A list of a function, of one value, and of what the one makes of the other each time."""
    called = b"h\x01" + row(b"h\x00", *more) + b"R"
    return b"](" + function + b"q\x01" + shared + b"q\x00" + called * times + b"e"


ENCODE, SIZE = named("_codecs", "encode"), named("torch", "Size")
ONES = struct.pack("<4f", 1, 1, 1, 1)
TWO_LISTS = b"\x86"  # a tuple of the two topmost values
SOUND = mapping(weight=tensor(storage(4), (2, 2), (2, 1)))
ONE_ENTRY = {"weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}


def damaged_claim() -> bytes:
    """A zip archive of which one member claims a gigabyte, in both of its headers."""
    content = zipped(SOUND, ONES)
    return content.replace(struct.pack("<2I", 16, 16), struct.pack("<2I", 2**30, 2**30))


def attacks(mark: str) -> dict[str, tuple[bytes, str]]:
    """Files by name, with what their refusal says; `mark` is what running their code would make."""
    command = text(f"touch {mark}")
    beyond = "reaches beyond the 4 values"
    bomb = doubled(30, b"]", TWO_LISTS)
    old = mapping(weight=tensor(storage(4, NONE), (2, 2), (2, 1)))
    deep = b"]" * 100_000 + b"a" * 99_999
    attributes = call("collections", "OrderedDict") + mapping(items=NONE) + b"b"
    return {
        "os.system": (zipped(call("posix", "system", command)), "asks for posix.system, which mig"),
        "os.system, legacy": (
            legacy(call("os", "system", command), 4, ONES),
            "asks for os.system, which might run code",
        ),
        "os.system beside weights": (
            zipped(mapping(state_dict=SOUND, meta=call("os", "system", command)), ONES),
            "asks for os.system",
        ),
        "eval": (zipped(call("__builtin__", "eval", command)), "asks for builtins.eval"),
        "a class of the project": (
            zipped(call("train.files", "remove_unfinished", command)),
            "asks for train.files.remove_unfinished",
        ),
        "memory by bytearray": (
            zipped(call("builtins", "bytearray", integer(10**12))),
            "asks for builtins.bytearray",
        ),
        "time by an encoding": (
            zipped(call("_codecs", "encode", text("x" * 9999), text("punycode"))),
            "bytes in an unknown encoding",
        ),
        "memory by one text in many copies": (
            zipped(mapping(meta=repeated(10_000, ENCODE, text("x" * 2**20), text("latin1")))),
            "copies one value over and over",
        ),
        "memory by one shape in many copies": (
            zipped(mapping(meta=repeated(50_000, SIZE, row(*[integer(1)] * 10_000)))),
            "copies one value over and over",
        ),
        "billion-fold lists": (zipped(mapping(meta=bomb)), "unfolds to more than 1,000,000 values"),
        "billion-fold key, whose hash takes for ever": (
            zipped(b"}" + doubled(30, b")", TWO_LISTS) + NONE + b"s"),
            "unfolds to more than 1,000,000 values",
        ),
        "tuple as a key": (
            zipped(b"}" + row(integer(1)) + NONE + b"s"),
            "keys are no texts or num",
        ),
        "deep lists": (zipped(deep), "nests more than 40 levels"),
        "deep tuples": (zipped(b")" + b"\x85" * 100_000), "nests more than 40 levels"),
        "unknown instruction": (
            zipped(b"N0"),
            "has the instruction POP",
        ),
        "many instructions": (
            zipped(b"](" + b"N" * MOST_INSTRUCTIONS + b"e"),
            "more than 400,000 instructions",
        ),
        "newer protocol": (saved({"a": 1}, protocol=4), "its pickle has protocol 4"),
        "attributes that hide a dictionary's own": (zipped(attributes), "attributes of its own"),
        "compressed members": (
            zipped(SOUND, bytes(2**24), compression=zipfile.ZIP_DEFLATED),
            "its members are compressed",
        ),
        "member that is shorter than both say": (
            zipped(SOUND, ONES[:8]).replace(struct.pack("<2I", 8, 8), struct.pack("<2I", 8, 16)),
            "archive/data/0 has 8 of 16 bytes",
        ),
        "member that claims a gigabyte": (damaged_claim(), "claim more bytes than the file has"),
        "directory that claims gigabytes": (
            zipped(
                SOUND, ONES, members={"archive/x" + "y" * 60_000 + str(n): b"" for n in range(36)}
            ),
            f"directory has more than {LARGEST_DIRECTORY:,} bytes",
        ),
        "storage larger than its member": (
            zipped(mapping(weight=tensor(storage(10**12), (2, 2), (2, 1))), ONES),
            "archive/data/0 has 16 of 4,000,000,000,000 bytes",
        ),
        "storage larger than the file, legacy": (
            legacy(mapping(weight=tensor(storage(2**40, NONE), (2, 2), (2, 1))), 2**40, ONES),
            "storage 0 has not all of its 4,398,046,511,104 bytes",
        ),
        "list of storages that is a bomb": (
            legacy(old, 4, ONES, doubled(30, b"]", TWO_LISTS)),
            "unfolds to more than",
        ),
        "list of storages by numbers": (
            legacy(old, 4, ONES, b"](" + integer(0) + b"e"),
            "list of storages is not that of its tensors",
        ),
        "storage of a negative size": (
            zipped(mapping(weight=tensor(storage(-4), (2, 2), (2, 1))), ONES),
            "a storage without type, key or size",
        ),
        "expanded tensor": (
            zipped(mapping(weight=tensor(storage(4), (10**9, 10**9), (0, 0))), ONES),
            rf"weight of shape \(1000000000, 1000000000\) {beyond}",
        ),
        "tensor beyond its storage": (
            zipped(mapping(weight=tensor(storage(4), (2, 2), (8, 1))), ONES),
            beyond,
        ),
        "offset beyond the storage": (
            zipped(mapping(weight=tensor(storage(4), (2,), (1,), offset=4)), ONES),
            beyond,
        ),
        "negative stride": (
            zipped(mapping(weight=tensor(storage(4), (2, 2), (-1, 1))), ONES),
            "no number of values",
        ),
        "thousand dimensions": (
            zipped(mapping(weight=tensor(storage(4), (1,) * 1000, (1,) * 1000)), ONES),
            "weight has 1000 dimensions",
        ),
        "sparse tensor": (saved({"a": torch.eye(2).to_sparse()}), "it holds a sparse tensor"),
        "meta tensor": (saved({"a": torch.ones(2, device="meta")}), "a tensor without values"),
        "quantized tensor": (
            zipped(mapping(a=call("torch._utils", "_rebuild_qtensor"))),
            "it holds a quantized tensor",
        ),
        "header of exabytes": (
            safetensors_file(b"{}", claimed=2**60),
            "its header claims 1,152,921,504,606,846,976 bytes of a file of 10",
        ),
        "header of many brackets": (
            safetensors_file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
            "it is damaged",
        ),
        "tensor of petabytes": (
            safetensors_file(
                json.dumps(
                    {"a": {"dtype": "F32", "shape": [2**40, 2**8], "data_offsets": [0, 2**50]}}
                ).encode()
            ),
            "it is damaged",
        ),
        "overlapping tensors": (
            safetensors_file(json.dumps(ONE_ENTRY | {"b": ONE_ENTRY["weight"]}).encode(), ONES),
            "it is damaged",
        ),
    }


def foreign() -> dict[str, tuple[bytes, str]]:
    """Damaged files, and files of other programs, by name, with what their refusal says."""
    sound = zipped(SOUND, ONES)
    old = legacy(mapping(weight=tensor(storage(4, NONE), (2, 2), (2, 1))), 4, ONES)
    tensors = safetensors_file(json.dumps(ONE_ENTRY).encode(), ONES)
    return {
        "empty": (b"", "is empty"),
        "text": (b"no checkpoint", "neither safetensors nor written by torch.save"),
        "web page": (b"<!DOCTYPE html><title>Sign in</title>", "it is a web page"),
        "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        "gzip": (b"\x1f\x8b\x08", "packed with gzip: unpack it first"),
        "xz": (b"\xfd7zXZ\x00\x00", "packed with xz"),
        "HDF5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        "NumPy": (b"\x93NUMPY\x01\x00", "a NumPy array"),
        "tar": (bytes(257) + b"ustar\x00" + bytes(250), "a tar archive"),
        "bare pickle": (pickle.dumps({"a": 1}, protocol=4), "a pickle that torch.save did not wri"),
        "NumPy's archive": (
            zipped(SOUND, members={"a.npy": b""}),
            "an archive of NumPy arrays",
        ),
        "TorchScript": (zipped(SOUND, members={"a/constants.pkl": b""}), "a TorchScript archive"),
        "another zip": (
            zipped(SOUND).replace(b"data.pkl", b"data.xyz"),
            "torch.save did not write",
        ),
        "two pickles": (zipped(SOUND, members={"b/data.pkl": b""}), "torch.save did not write"),
        "list": (saved([torch.ones(1)]), "it holds no dictionary of tensors"),
        "whole module": (saved(torch.nn.ReLU()), "asks for torch.nn.modules.activation.ReLU"),
        "cut off": (sound[:-40], "its archive is damaged"),
        "cut off in the middle": (sound[: len(sound) // 2], "its archive is damaged"),
        "wrong byte in a tensor": (sound.replace(ONES, ONES[:-1] + b"\x00"), "Bad CRC-32"),
        "no values": (zipped(SOUND), "archive/data/0 has 0 of 16 bytes"),
        "legacy, cut off": (old[:-3], "storage 0 has not all of its 16 bytes"),
        "legacy, cut off in a pickle": (old[:60], "its pickle is damaged"),
        "legacy, something behind": (old + b"x", "it has 1 bytes too many"),
        "safetensors, cut off": (tensors[:-3], "it is damaged"),
        "safetensors, something behind": (tensors + b"x", "it is damaged"),
        "safetensors, no JSON": (safetensors_file(b"{nonsense}"), "it is damaged"),
        "safetensors, unknown type": (
            tensors.replace(b"F32", b"X32"),
            "it is damaged",
        ),
    }
