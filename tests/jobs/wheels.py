"""Tiny wheels, made on the spot."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path


def make_wheel(folder: Path, name: str, **files: str) -> str:
    """A wheel of this file name that pip installs; returns its SHA-256.

    Args:
        folder: where to.
        name: of the file; says package, version and tags.
        files: text by file name, with `__` for the dot.
    """
    package, version, *tags = name.removesuffix(".whl").split("-")
    info = f"{package}-{version}.dist-info"
    content = {each.replace("__", "."): text for each, text in files.items()}
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {'-'.join(tags)}\n"
    content[f"{info}/RECORD"] = "".join(f"{each},,\n" for each in [*content, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / name, "w") as wheel:
        for each, text in content.items():
            wheel.writestr(each, text)
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()
