"""Checkpoints: written whole, named by their step, checked before they are trusted.

A checkpoint is a file with the state and, written after it, its manifest `step-00001563.json`,
which names that file and its SHA-256. A state that no manifest names does not count: it is what a
killed writer leaves. The state's own name ends in digits of its SHA-256, so that saving a step once
more never touches the checkpoint that is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from train.errors import RequestError

VISIBLE_SECONDS = 10.0


@dataclass(frozen=True)
class Manifest:
    """What is known of one complete checkpoint.

    `file`: name of the state beside it. `size`: in bytes. `score`: top-1 in percent, None if that
    step was not evaluated. `seconds`: that the writing took. `saved_at`: UTC.
    """

    step: int
    file: str
    sha256: str
    size: int
    score: float | None
    seconds: float
    saved_at: str


def write(folder: Path, state: dict[str, Any], *, score: float | None, keep_last: int) -> Manifest:
    """Write `state` as the checkpoint of its step and remove what need not be kept.

    Kept are the `keep_last` newest ones and the one with the best score.

    Raises:
        OSError, RuntimeError: it could not be written; those that were there still are.
    """
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{state['step']:08d}"
    unfinished = folder / f"{name}.pt.partial"
    unfinished_manifest = folder / f"{name}.json.partial"
    try:
        with unfinished.open("wb") as file:
            torch.save(state, file)
            flush(file.fileno())
        sha256 = sha256_of(unfinished)
        manifest = Manifest(
            step=state["step"],
            file=f"{name}-{sha256[:8]}.pt",
            sha256=sha256,
            size=unfinished.stat().st_size,
            score=score,
            seconds=round(time.perf_counter() - began, 3),
            saved_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        with unfinished_manifest.open("w") as file:
            json.dump(asdict(manifest), file)
            file.flush()
            flush(file.fileno())
        rename(unfinished, folder / manifest.file)
        rename(unfinished_manifest, folder / f"{name}.json")
    except (OSError, RuntimeError):
        with contextlib.suppress(OSError):  # on a full disk, half a state would keep it full
            remove_unfinished(folder)
        raise
    prune(folder, keep_last)
    return manifest


def flush(descriptor: int) -> None:
    """Wait until what was written to `descriptor` would survive a power cut."""
    os.fsync(descriptor)


def rename(source: Path, target: Path) -> None:
    """Give `source` its final name, lastingly: the folder is flushed too."""
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        flush(folder)
    finally:
        os.close(folder)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifests(folder: Path) -> list[Manifest]:
    """The complete checkpoints in `folder`, oldest first; one with a damaged manifest is none."""

    def readable() -> Iterator[Manifest]:
        for path in folder.glob("step-*.json"):
            try:
                manifest = Manifest(**json.loads(path.read_text()))
            except (OSError, ValueError, TypeError):
                continue
            if (folder / manifest.file).is_file():
                yield manifest

    return sorted(readable(), key=lambda manifest: manifest.step)


def prune(folder: Path, keep_last: int) -> None:
    """Remove all but the newest `keep_last` checkpoints and the best one."""
    found = manifests(folder)
    scored = [manifest for manifest in found if manifest.score is not None]
    best = max(scored, key=lambda manifest: manifest.score or 0.0, default=None)
    kept = [manifest for manifest in found if manifest in found[-keep_last:] or manifest == best]
    for manifest in found:
        if manifest not in kept:
            (folder / f"step-{manifest.step:08d}.json").unlink(missing_ok=True)
    named = {manifest.file for manifest in kept}
    for path in folder.glob("step-*.pt"):
        if path.name not in named:
            path.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what a writer that was killed or failed has left."""
    for path in folder.glob("step-*.partial"):
        path.unlink(missing_ok=True)


def newest_intact(folder: Path) -> tuple[Manifest | None, list[str]]:
    """The newest checkpoint whose bytes are as they were written; newer ones are set aside.

    Set aside, because a damaged one would count as the newest for ever, and what is saved after
    the fall back to an older one would be removed in its favour.

    Returns:
        its manifest, None when there is no checkpoint, and a warning for each one passed over.

    Raises:
        RequestError: there are checkpoints and every one of them is damaged.
    """
    warnings: list[str] = []
    damaged: list[Path] = []
    found = {f"step-{manifest.step:08d}.json": manifest for manifest in manifests(folder)}
    for path in sorted(folder.glob("step-*.pt")):
        if path.name not in {manifest.file for manifest in found.values()}:
            warnings.append(f"{path} is passed over: no manifest says that it is complete")
    for path in sorted(folder.glob("step-*.json"), reverse=True):
        manifest = found.get(path.name)
        if manifest is None:
            warnings.append(f"{path} is damaged, or the state that it names is missing")
        elif not is_intact(folder, manifest):
            state = folder / manifest.file
            warnings.append(f"{state} is damaged: its SHA-256 is not the one it was written with")
        else:
            with contextlib.suppress(OSError):  # read-only; then nothing will be saved either
                for bad in damaged:
                    bad.replace(bad.with_suffix(".json.damaged"))
            return manifest, warnings
        damaged.append(path)
    if damaged:
        raise RequestError(
            f"every checkpoint in {folder} is damaged ({'; '.join(warnings)}): "
            "move the folder away to start again from the beginning"
        )
    return None, warnings


def is_intact(folder: Path, manifest: Manifest) -> bool:
    """Whether the bytes of a state are those that were written."""
    path = folder / manifest.file
    try:
        return path.stat().st_size == manifest.size and sha256_of(path) == manifest.sha256
    except OSError:
        return False


def load(folder: Path, manifest: Manifest, device: torch.device) -> dict[str, Any]:
    """The state that `manifest` speaks of, on `device`; no pickled code is run.

    Raises:
        RequestError: this process cannot read what the one that chose the checkpoint saw.
    """
    path = folder / manifest.file
    deadline = time.monotonic() + VISIBLE_SECONDS
    # By listing: a network file system remembers for long that a file was missing.
    while (
        not any(p.name == manifest.file for p in folder.iterdir()) and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    try:
        if sha256_of(path) == manifest.sha256:
            return torch.load(path, map_location=device, weights_only=True)
        problem = "its SHA-256 is not the one it was written with"
    except OSError as error:
        problem = error.strerror or str(error)
    raise RequestError(f"{path} reads well on rank 0 but not on {platform.node()}: {problem}")
