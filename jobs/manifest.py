"""What a bundle holds: every file with its size and SHA-256, to be checked wherever it was carried.

`manifest.json` is for programs, `SHA256SUMS` for `sha256sum --check`, which needs no Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict, TypeGuard

from jobs.errors import RequestError, WorkError
from jobs.files import read_json, write_json, write_whole
from jobs.meter import Meter

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
LOCK = ".stage.lock"
NOTES = ".stage.json"
# They tell of the others, or are nobody's content.
UNLISTED = {MANIFEST, SUMS, LOCK, NOTES}
CHUNK_BYTES = 4 * 2**20


class Facts(NamedTuple):
    """What a file is: bytes, and digests in lower-case hex digits."""

    size: int
    sha256: str
    md5: str


class Entry(TypedDict):
    """What a list says of a file: bytes and lower-case hex digits."""

    size: int
    sha256: str


class Difference(NamedTuple):
    """A file that is not as the manifest says."""

    what: Literal["missing", "damaged", "surplus"]
    name: str
    why: str


def measure(path: Path, meter: Meter | None = None) -> Facts:
    """Read a whole file.

    Raises:
        OSError: it cannot be read.
    """
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
            if meter:
                meter.advance(len(chunk))
    return Facts(size, sha256.hexdigest(), md5.hexdigest())


def entry(facts: Facts) -> Entry:
    """What a list says of a file with these facts."""
    return {"size": facts.size, "sha256": facts.sha256}


def write(folder: Path, files: Mapping[str, Facts], about: Mapping[str, object]) -> str:
    """Write both lists of a bundle; returns the SHA-256 of SHA256SUMS.

    Args:
        folder: the bundle.
        files: every file that belongs to it, by its path in the bundle.
        about: what else programs may want to know of it.

    Raises:
        OSError: they cannot be written.
    """
    listed = {name: entry(facts) for name, facts in sorted(files.items())}
    write_json(folder / MANIFEST, {**about, "files": listed})
    text = _sums(listed, measure(folder / MANIFEST).sha256)
    write_whole(folder / SUMS, text)
    return hashlib.sha256(text.encode()).hexdigest()


def read_files(folder: Path, name: str = MANIFEST) -> dict[str, Entry] | None:
    """The files that a list in a bundle names; None without a list, or with one that is damaged."""
    files = (read_json(folder / name) or {}).get("files")
    if not isinstance(files, dict) or not all(map(_is_entry, files.values())):
        return None
    return files


def _is_entry(value: object) -> TypeGuard[Entry]:
    return (
        isinstance(value, dict)
        and isinstance(value.get("size"), int)
        and isinstance(value.get("sha256"), str)
    )


def verify(folder: Path) -> int:
    """Print every file of a bundle that is missing, damaged or surplus.

    Returns:
        0.

    Raises:
        RequestError: there is no bundle.
        WorkError: it is not as its manifest says.
    """
    if not (folder / MANIFEST).is_file():
        raise RequestError(f"{folder} is no bundle, for it has no {MANIFEST}")
    files = read_files(folder)
    if not files:
        raise WorkError(f"{folder / MANIFEST} is damaged; carry the bundle again")
    findings = list(_look_at_all(folder, files))
    for finding in findings:
        print(f"{finding.what}  {finding.name}: {finding.why}")
    if findings:
        remedy = "carry what is missing or damaged again, and remove what is surplus"
        raise WorkError(f"{len(findings)} of the files in {folder} are not as they were; {remedy}")
    print(f"{folder}: all {len(files)} files are as {MANIFEST} says")
    return 0


def _look_at_all(folder: Path, files: Mapping[str, Entry]) -> list[Difference]:
    found = []
    with Meter("verifying", sum(each["size"] for each in files.values())) as meter:
        for name, wanted in files.items():
            try:
                facts = measure(folder / name, meter)
            except FileNotFoundError:
                found.append(Difference("missing", name, "is not there"))
            except OSError as error:
                found.append(Difference("damaged", name, f"cannot be read: {error.strerror}"))
            else:
                if facts.size != wanted["size"]:
                    why = f"has {facts.size:,} bytes, not {wanted['size']:,}"
                    found.append(Difference("damaged", name, why))
                elif facts.sha256 != wanted["sha256"]:
                    found.append(Difference("damaged", name, "has another SHA-256"))
    sums = _sums(files, measure(folder / MANIFEST).sha256)
    if (folder / SUMS).is_file() and (folder / SUMS).read_bytes() != sums.encode():
        found.append(Difference("damaged", SUMS, f"does not say what {MANIFEST} says"))
    elif not (folder / SUMS).is_file():
        found.append(Difference("missing", SUMS, "is not there"))
    surplus = sorted(names_in(folder) - files.keys() - UNLISTED)
    return found + [Difference("surplus", name, "is in no list") for name in surplus]


def names_in(folder: Path) -> set[str]:
    """The paths of all that lies below a folder and is no folder."""
    below = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in below}


def _sums(files: Mapping[str, Entry], manifest: str) -> str:
    """SHA256SUMS, which ends with the manifest, so that one cut short shows."""
    lines = [f"{each['sha256']}  {name}\n" for name, each in files.items()]
    return "".join([*lines, f"{manifest}  {MANIFEST}\n"])
