"""Checks of the files that a run reads: there, readable, and the ones that they should be."""

from __future__ import annotations

import hashlib
import importlib.util
import time
import zlib
from pathlib import Path

from configs.archives import LARGEST_ARCHIVE_BYTES, PUBLISHED
from configs.checksum import promised_sha256
from configs.data import Data
from configs.effects import settings_without_effect
from configs.schema import Recipe
from configs.steps import count_steps, steps_per_epoch
from jobs.files import exists
from jobs.finding import Finding, failed, passed, warned

# What one read takes at a time, and how long reading a whole file may take.
CHUNK_BYTES = 4 * 2**20
READ_SECONDS = 6.0
# Of torch.save's two formats, zip and pickles; safetensors has 8 bytes of length before its JSON.
BEGINNINGS = (b"PK\x03\x04", b"\x80")
SAFETENSORS_HEADER = b"{"
GZIP = 31  # zlib's number for the largest window and gzip's header and trailer


class _SlowError(Exception):
    """A file could not be read to its end in time."""


def check_archive(data: Data) -> list[Finding]:
    """Whether the images are there, without reading them all."""
    archive = Path(data.root) / data.archive
    if data.source == "digits":
        return [_check_digits(archive)]
    if exists(Path(data.root)) and Path(data.root).is_file():
        return [failed(f"{data.root} is a file", "name the folder that holds it", "data.root")]
    published = PUBLISHED.get(data.archive)
    if not exists(archive):
        remedy = "put it there or name another"
        if published:
            remedy = f"download {published.url} and put it there, unchanged"
        return [failed(f"{archive} is missing", remedy, "data.root")]
    if trouble := _unreadable(archive, "data.root"):
        return [trouble]
    return [_check_size(data, archive)]


def _check_digits(archive: Path) -> Finding:
    if exists(archive):
        return passed(f"{archive}, which is there, and is not written anew")
    if importlib.util.find_spec("sklearn") is None:
        remedy = "which is not installed: pip install scikit-learn"
        return failed("digits come with scikit-learn", remedy, "data.source")
    return passed("handwritten digits, which the run writes itself")


def _check_size(data: Data, archive: Path) -> Finding:
    size = archive.stat().st_size
    published = PUBLISHED.get(data.archive)
    if data.md5 == "official" and published and size != published.num_bytes:
        text = f"{archive} has {size:,} bytes and the official archive {published.num_bytes:,}"
        return failed(text, _bring_again(data, "none or its own"), "data.root")
    if size > LARGEST_ARCHIVE_BYTES:
        limit = f"{LARGEST_ARCHIVE_BYTES:,}"
        text = f"{archive} has {size:,} bytes, and {limit} are the most it may have"
        return failed(text, "leave images out", "data.root")
    return passed(f"{archive}, {size:,} bytes")


def check_classes(recipe: Recipe) -> list[Finding]:
    """Whether an archive that everybody knows has as many classes as the model.

    Any other shows it when the run reads it.
    """
    data, asked = recipe.data, recipe.model.num_classes
    published = PUBLISHED.get(data.archive)
    if data.source == "digits" or data.md5 != "official" or not published:
        return []
    if asked != published.num_classes:
        text = f"{data.archive} has {published.num_classes} classes and the model {asked}"
        remedy = f"set it to {published.num_classes}, or data.archive to another archive"
        return [failed(text, remedy, "model.num_classes")]
    return [passed(f"{asked}, as the archive has")]


def check_settings(recipe: Recipe) -> list[Finding]:
    """Whether there are as many images as are asked for, and the run comes to all that it is to do.

    The images of an archive of one's own are counted by the run alone.
    """
    data = recipe.data
    is_known = data.source == "archive" and data.md5 == "official"
    published = PUBLISHED[data.archive] if is_known else None
    if published:
        for key, asked, there in (
            ("data.train_images", data.train_images, published.num_train),
            ("data.test_images", data.test_images, published.num_test),
        ):
            if asked and asked > there:
                text = f"asks for {asked:,} images, and {data.archive} has {there:,}"
                return [failed(text, "lower it or set it to null", key)]
    num_images = data.train_images or (published.num_train if published else None)
    if num_images is None:
        return []
    steps = count_steps(recipe, steps_per_epoch(num_images, recipe.train.batch_size))
    idle = [each.rpartition(": ") for each in settings_without_effect(recipe, num_images)]
    return [warned(text, remedy) for text, _, remedy in idle] or [
        passed(f"{steps:,} steps, which come to all that the recipe sets")
    ]


def check_archive_content(data: Data) -> list[Finding]:
    """Whether the whole archive is what `data.md5` asks for or, for none, whole at all."""
    archive = Path(data.root) / data.archive
    if data.source == "digits" or any(each.level == "fail" for each in check_archive(data)):
        return []
    try:
        if data.md5 == "none":
            _unpack(archive)
            return [passed("is whole; data.md5 is none, so nothing is compared")]
        wanted = PUBLISHED[data.archive].md5 if data.md5 == "official" else data.md5
        found = _digest(archive, "md5")
    except _SlowError:
        return [_too_slow(archive, "data.root")]
    except (EOFError, zlib.error) as error:
        text = f"{archive} is truncated or damaged ({error})"
        return [failed(text, f"bring it again{_source(data)}", "data.root")]
    if found != wanted:
        text = f"{archive} has MD5 {found}, data.md5 asks for {wanted}"
        return [failed(text, _bring_again(data, found), "data.root")]
    return [passed(f"MD5 {found}, as data.md5 asks for")]


def check_weights(weights: str | None) -> list[Finding]:
    """Whether the checkpoint to start from is there."""
    if not weights:
        return [passed("none: the run starts from random weights")]
    path = Path(weights)
    if not exists(path):
        remedy = "put the checkpoint there or name another"
        return [failed(f"{path} is missing", remedy, "model.weights")]
    if trouble := _unreadable(path, "model.weights"):
        return [trouble]
    with path.open("rb") as file:
        head = file.read(9)
    if not (head.startswith(BEGINNINGS) or head[8:] == SAFETENSORS_HEADER):
        text = f"{path} is empty" if not head else f"{path} is neither PyTorch's nor safetensors"
        remedy = f"bring the checkpoint again (python -m train.weights {path} tells more)"
        return [failed(text, remedy, "model.weights")]
    return [passed(f"{path}, {path.stat().st_size:,} bytes")]


def check_weights_content(weights: str | None) -> list[Finding]:
    """Whether the checkpoint is the one that its name promises."""
    path = Path(weights or "")
    promised = promised_sha256(path.name)
    if not promised or check_weights(weights)[0].level == "fail":
        return []
    try:
        found = _digest(path, "sha256")
    except _SlowError:
        return [_too_slow(path, "model.weights")]
    if not found.startswith(promised):
        text = f"{path} has SHA-256 {found[:16]}..., not the {promised} of its name"
        remedy = "bring the checkpoint again or, if this is the one that you mean, rename it"
        return [failed(text, remedy, "model.weights")]
    return [passed(f"SHA-256 begins with {promised}, as in its name")]


def _unreadable(path: Path, key: str) -> Finding | None:
    if not path.is_file():  # opening a FIFO would wait for ever
        return failed(f"{path} is no regular file", "put a file there", key)
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        remedy = f"give yourself the right to read it (ls -l {path}) or name another file"
        return failed(f"{path} cannot be read ({error.strerror})", remedy, key)
    return None


def _source(data: Data) -> str:
    published = PUBLISHED.get(data.archive)
    return f" from {published.url}" if published else ""


def _bring_again(data: Data, md5: str) -> str:
    meant = f"if this is the archive that you mean, set data.md5 to {md5}"
    return f"bring it again{_source(data)}, or, {meant}"


def _too_slow(path: Path, key: str) -> Finding:
    text = f"{path} could not be read to its end within {READ_SECONDS:.0f} s, so it is unchecked"
    return warned(text, "look at its storage; the run reads the whole file too", key)


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    deadline = time.monotonic() + READ_SECONDS
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            _check_time(deadline)
    return digest.hexdigest()


def _unpack(path: Path) -> None:
    """Unpack a gzip file piece by piece, for the check sum at its end."""
    inflate = zlib.decompressobj(wbits=GZIP)
    deadline = time.monotonic() + READ_SECONDS
    unpacked = 0
    with path.open("rb") as file:
        while not inflate.eof:
            chunk = inflate.unconsumed_tail or file.read(CHUNK_BYTES)
            part = inflate.decompress(chunk, CHUNK_BYTES)
            if not chunk and not part:
                raise EOFError("it ends too early")
            unpacked += len(part)
            _check_time(deadline)
            if unpacked > LARGEST_ARCHIVE_BYTES:
                raise EOFError(f"it does not end after {LARGEST_ARCHIVE_BYTES:,} bytes")


def _check_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise _SlowError
