"""The folder that is carried to the cluster: where each of its files lies, and how it is made.

install.sh README.txt bundle.conf    what a person and install.sh read first
manifest.json SHA256SUMS             what the rest must be
project.tar.gz                       the project, as it is here
requirements.txt wheels/             the environment
files/                               data and weights, below it as below the project
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs import manifest
from jobs.errors import RequestError, WorkError
from jobs.files import write_whole
from jobs.locking import HeldError, hold
from jobs.manifest import Facts, measure
from jobs.repository import PROJECT, list_files, new_files
from jobs.snapshot import PARTS
from jobs.target import Target

INSTALLER = "install.sh"
README = "README.txt"
FACTS = "bundle.conf"
ARCHIVE = "project.tar.gz"
REQUIREMENTS = "requirements.txt"
WHEELS = "wheels"
FILES = "files"
# What the project's folder holds that is no part of the project, where git cannot say.
LEFT_OUT = {"data", "weights", "logs"}
SITE = Path("configs", "site.yaml")

README_TEXT = """The slurm-finetune bundle for Python {python} on {platform} (torch: {torch})

Carry this whole folder to the cluster. There, in a place that every node sees:

  sha256sum --check --quiet SHA256SUMS
  ./install.sh --to slurm-finetune
  cd slurm-finetune && . .venv/bin/activate && python launch.py {launch}

install.sh makes the first check by itself, uses no network and needs no root. Where `python3` is
another version: PYTHON=/path/to/python{python} ./install.sh. More: docs/offline.md of the project.
"""


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[None]:
    """Hold a folder, made if need be, so that no other process makes a bundle in it meanwhile.

    On a file system without locks it is not held.

    Raises:
        RequestError: it holds other things than a bundle, or another process holds it.
    """
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"--to {folder}: is a file, and a bundle is a folder")
    # By what only `stage` writes: other projects have folders of wheels, too.
    if folder.exists() and any(folder.iterdir()) and not is_bundle(folder):
        raise RequestError(f"--to {folder}: holds other things; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with hold(folder / manifest.LOCK):
            yield
    except HeldError:
        raise RequestError(f"--to {folder}: another stage is at work there; wait for it") from None


def is_bundle(folder: Path) -> bool:
    """Whether `stage` has been at work in a folder, to its end or not."""
    return (folder / manifest.LOCK).is_file() or bool(manifest.read_files(folder))


def project_files(bundle: Path) -> list[Path]:
    """What of the project is carried, relative to it: what git tracks, and new files of the code.

    Where git cannot say, all that is neither hidden nor data, weights, logs, this site's settings,
    Python's own, an environment or a bundle.
    """
    listed = list_files(PROJECT)
    if listed is None:
        return sorted(_walk(bundle))
    new = {Path(name) for name in new_files()}
    return sorted(
        path
        for path in {*listed}
        if (path not in new or path.parts[0] in PARTS) and (PROJECT / path).is_file()
    )


def _walk(bundle: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(PROJECT):
        inside = Path(folder).relative_to(PROJECT)
        # In place, so that what is left out is not looked through: an environment has many files.
        folders[:] = [name for name in folders if _is_carried(inside / name, bundle)]
        for name in names:
            path = inside / name
            if not name.startswith(".") and path != SITE and (PROJECT / path).is_file():
                yield path


def _is_carried(folder: Path, bundle: Path) -> bool:
    if folder.name.startswith(".") or folder.name == "__pycache__" or str(folder) in LEFT_OUT:
        return False
    whole = PROJECT / folder
    is_environment = (whole / "pyvenv.cfg").exists()
    return not is_environment and not is_bundle(whole) and whole.resolve() != bundle.resolve()


def pack_project(target: Path, files: Sequence[Path]) -> None:
    """Write the project's files as an archive that is the same for the same files."""
    draft = target.with_name(f".{target.name}")
    with (
        draft.open("wb") as raw,
        # Without a name and a time in its header.
        gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for path in files:
            archive.add(PROJECT / path, path.as_posix(), recursive=False, filter=_anonymous)
    draft.replace(target)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    # Whole seconds, or Python takes a changed file of the same size for the one it compiled.
    member.mtime = int(member.mtime)
    return member


def write_texts(folder: Path, target: Target, arguments: Sequence[str], launch: str) -> None:
    """Write what a person and install.sh read first.

    Args:
        folder: the bundle, in which all else lies.
        target: what it is for.
        arguments: of the `doctor` that install.sh runs.
        launch: the arguments of the launch that a person will type, quoted for the shell.

    Raises:
        WorkError: a file of the project is missing.
        OSError: they cannot be written.
    """
    lines = [
        f"python={target.python}",
        f"machine={target.machine}",
        f"glibc=2.{target.glibc}",
        f"torch={target.torch}",
        f"room={_room(folder)}",
        *(f"argument={each}" for each in arguments),
    ]
    write_whole(folder / FACTS, "".join(f"{line}\n" for line in lines))
    text = README_TEXT.format(
        python=target.python, platform=target.platform, torch=target.torch, launch=launch
    )
    write_whole(folder / README, text)
    script = PROJECT / "slurm" / INSTALLER
    if not script.is_file():
        raise WorkError(f"{script} is missing; restore it")
    write_whole(folder / INSTALLER, script.read_text(encoding="utf-8"))
    mode = (folder / INSTALLER).stat().st_mode
    (folder / INSTALLER).chmod(mode | (mode & 0o444) >> 2)  # who may read it may run it


def _room(folder: Path) -> int:
    """Bytes that an installation takes."""
    wheels = sum(
        member.file_size
        for wheel in (folder / WHEELS).glob("*.whl")
        for member in zipfile.ZipFile(wheel).infolist()
    )
    files = sum(path.stat().st_size for path in (folder / FILES).rglob("*") if path.is_file())
    # A tenth more for what Python compiles.
    return wheels + wheels // 10 + files + 10 * (folder / ARCHIVE).stat().st_size


def copy_whole(source: Path, target: Path, facts: Facts) -> None:
    """Copy a large file so that it is there whole or not at all.

    Args:
        source: the file.
        target: its copy.
        facts: what both must be.

    Raises:
        OSError: it cannot be read or written.
        WorkError: the copy is another file.
    """
    draft = target.with_name(f".{target.name}.copy")
    try:
        shutil.copyfile(source, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        if measure(draft) != facts:
            raise WorkError(f"{source} changed while it was copied, or its copy did; try once more")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
