"""What is written line by line: metrics.jsonl and TensorBoard's events, whatever the disk does."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from train.files import flush, whole_file

# Those that a row has are shown.
SCALARS = {
    "train": ("loss", "lr", "images_per_second", "resolution"),
    "val": (
        *("accuracy_top-1", "accuracy_top-5", "loss"),
        *("accuracy_top-1_flip", "accuracy_top-5_flip"),
    ),
}


def read_rows(path: Path, key: str) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file with a whole number at `key`; all else is damage."""
    rows = []
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get(key), int):
                rows.append(row)
    return rows


def keep_rows_until(path: Path, step: int, *, is_evaluated: bool) -> list[dict[str, Any]]:
    """Drop from metrics.jsonl what a lost attempt wrote after `step`, and damaged lines.

    Returns:
        the rows that are left.
    """
    if not path.exists():
        return []
    kept = [
        row
        for row in read_rows(path, "step")
        if row["step"] < step or (row["step"] == step and (row["mode"] == "train" or is_evaluated))
    ]
    text = "".join(json.dumps(row) + "\n" for row in kept).encode()
    before = path.read_bytes()
    if before.startswith(text):  # also on a full disk
        os.truncate(path, len(text))
    else:
        with whole_file(path) as file:
            file.write(text)
    return kept


class Lines:
    """metrics.jsonl: whole lines only, whatever the disk does.

    Another thread may call `sync` while one is being written, which is then no failure.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("ab", buffering=0)
        self.held: list[bytes] = []
        self.is_behind = False

    def write(self, row: dict[str, Any]) -> str | None:
        """Append `row`, and what was held back before it; what is wrong if that fails."""
        self.held.append(json.dumps(row, allow_nan=False).encode() + b"\n")
        try:
            self.catch_up()
        except OSError as error:
            self.is_behind = True
            return f"{self.path}: {error.strerror}"
        self.is_behind = False
        return None

    def catch_up(self) -> None:
        """Append what was held back.

        Raises:
            OSError: it cannot be written; the file is as it was before.
        """
        if not self.held:
            return
        size = os.fstat(self.file.fileno()).st_size
        text = b"".join(self.held)
        try:
            if self.file.write(text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self.file.fileno(), size)
            raise
        self.held = []

    def sync(self) -> None:
        """Have every line on the disk.

        Raises:
            OSError: one is held back, or the disk fails.
        """
        if self.is_behind:
            raise OSError(errno.ENOSPC, f"lines of {self.path.name} are held back")
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Bring the lines to the disk."""
        os.fsync(self.file.fileno())
        self.file.close()


class Board:
    """The scalars in TensorBoard. After an error a new event file takes the place of the broken.

    As with `Lines`, another thread may call `sync`.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self.purge_step = step
        self.writer: SummaryWriter | None = None
        self.held: list[dict[str, Any]] = []
        self.is_behind = False
        self.shown: list[dict[str, Any]] = []  # of the newest step that was shown

    def open(self) -> SummaryWriter:
        """The writer; earlier events from `purge_step` on are not shown any more.

        Raises:
            OSError: no event file can be made.
        """
        if self.writer is None:
            self.writer = SummaryWriter(str(self.folder), purge_step=self.purge_step)
        return self.writer

    def write_text(self, recipe: str) -> str | None:
        """Show the recipe as text; what is wrong if that fails."""
        try:
            text = "\n".join(f"    {line}" for line in recipe.splitlines())
            self.open().add_text("recipe", text, 0)
        except OSError as error:
            return self._broken(error)
        return None

    def write(self, row: dict[str, Any]) -> str | None:
        """Show `row`, and what was held back before it; what is wrong if that fails."""
        self.held.append(row)
        try:
            self.catch_up()
        except OSError as error:
            self.is_behind = True
            return self._broken(error)
        self.is_behind = False
        return None

    def _broken(self, error: OSError) -> str:
        self.writer = None
        if self.held:
            first = self.held[0]["step"]
            self.purge_step = min(self.purge_step, first)
            # They are purged too, and shown once more.
            self.held = [row for row in self.shown if row["step"] == first] + self.held
            self.shown = []
        return f"{self.folder}: {error.strerror or error}"

    def catch_up(self) -> None:
        """Show what was held back.

        Raises:
            OSError: it cannot be written.
        """
        writer = self.open()
        for row in self.held:
            for key in filter(row.__contains__, SCALARS[row["mode"]]):
                writer.add_scalar(f"{row['mode']}/{key}", row[key], row["step"])
            for part, seconds in row.get("parts", {}).items():
                writer.add_scalar(f"train/time/{part}", seconds, row["step"])
        writer.flush()
        if self.held:
            # What an error may lose from here on begins with the next row.
            self.purge_step = self.held[-1]["step"] + 1
            rows = self.shown + self.held
            self.shown = [row for row in rows if row["step"] == self.held[-1]["step"]]
        self.held = []

    def sync(self) -> None:
        """Have every event on the disk.

        Raises:
            OSError: one is held back, or the disk fails.
        """
        if self.is_behind:
            raise OSError(errno.ENOSPC, "events are held back")
        for path in self.folder.glob("events.*"):
            flush(path)

    def close(self) -> None:
        """Bring the events to the disk."""
        if self.writer:
            self.writer.close()
