"""What has come into a bundle so far, whether or not a call has come to its end.

The manifest is written when a bundle is complete. Until then this list beside it has what nothing
else can tell again: which file was brought by hand, and the hash of a wheel that no lock knows.
"""

from __future__ import annotations

from pathlib import Path

from jobs import manifest
from jobs.files import write_json
from jobs.manifest import NOTES, Facts


class Notes:
    """Files of a bundle as they were when they came, by the manifest or since."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the bundle."""
        self._folder = folder
        self._since = manifest.read_files(folder, NOTES) or {}
        self._files = (manifest.read_files(folder) or {}) | self._since

    def have(self, path: Path) -> bool:
        """Whether anything is noted of a file."""
        return self._name(path) in self._files

    def fit(self, path: Path, facts: Facts) -> bool:
        """Whether a file is as it was noted."""
        return self._files.get(self._name(path)) == manifest.entry(facts)

    def add(self, path: Path, facts: Facts) -> None:
        """Note a file at once, so that a call that is killed later has not lost it.

        Raises:
            OSError: the list cannot be written.
        """
        if self.fit(path, facts):
            return
        name = self._name(path)
        self._files[name] = self._since[name] = manifest.entry(facts)
        write_json(self._folder / NOTES, {"files": self._since})

    def clear(self) -> None:
        """The manifest has it all now."""
        (self._folder / NOTES).unlink(missing_ok=True)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()
