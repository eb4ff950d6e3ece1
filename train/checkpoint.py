"""Checkpoints: written whole, named by their step, checked before they are trusted.

A checkpoint is `step-00001563.pt` and, written after it, `step-00001563.json` with its SHA-256 and
scores. Without that second file the first does not count: it is what a killed writer leaves.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from train.errors import RequestError


@dataclass(frozen=True)
class Manifest:
    """What is known of one complete checkpoint; `score` is its top-1 in percent, if evaluated."""

    step: int
    sha256: str
    size: int
    score: float | None


def save(folder: Path, state: dict[str, Any], *, score: float | None, keep_last: int) -> Path:
    """Write `state` as the checkpoint of its step and remove what need not be kept.

    Kept are the `keep_last` newest ones and the one with the best score.

    Returns:
        the file with the state.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{state['step']:08d}.pt"
    unfinished = path.with_suffix(".partial")
    with unfinished.open("wb") as file:
        torch.save(state, file)
        flush(file.fileno())
    manifest = Manifest(state["step"], sha256_of(unfinished), unfinished.stat().st_size, score)
    rename(unfinished, path)

    unfinished = path.with_suffix(".json.partial")
    with unfinished.open("w") as file:
        json.dump(asdict(manifest), file)
        file.flush()
        flush(file.fileno())
    rename(unfinished, path.with_suffix(".json"))
    prune(folder, keep_last)
    return path


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
            if state_path(folder, manifest).is_file():
                yield manifest

    return sorted(readable(), key=lambda manifest: manifest.step)


def state_path(folder: Path, manifest: Manifest) -> Path:
    """The file with the state that `manifest` speaks of."""
    return folder / f"step-{manifest.step:08d}.pt"


def prune(folder: Path, keep_last: int) -> None:
    """Remove all but the newest `keep_last` checkpoints and the best one."""
    found = manifests(folder)
    scored = [manifest for manifest in found if manifest.score is not None]
    best = max(scored, key=lambda manifest: manifest.score or 0.0, default=None)
    for manifest in found[:-keep_last]:
        if manifest != best:
            path = state_path(folder, manifest)
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def load_newest(folder: Path, device: torch.device) -> tuple[dict[str, Any] | None, list[str]]:
    """The state of the newest checkpoint whose bytes are as they were written.

    Returns:
        the state, None when there is no checkpoint, and a warning for each one passed over.

    Raises:
        RequestError: there are checkpoints and every one of them is damaged.
    """
    warnings: list[str] = []
    found = manifests(folder)
    for manifest in reversed(found):
        path = state_path(folder, manifest)
        if path.stat().st_size != manifest.size or sha256_of(path) != manifest.sha256:
            warnings.append(f"{path} is damaged: its SHA-256 is not the one it was written with")
            continue
        return torch.load(path, map_location=device, weights_only=True), warnings
    if found:
        raise RequestError(
            f"every checkpoint in {folder} is damaged ({'; '.join(warnings)}): "
            "move the folder away to start again from the beginning"
        )
    return None, warnings
