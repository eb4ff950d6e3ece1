"""Checks of the storage: do other nodes see it, can it be written, is there room for the run?"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from configs.schema import Recipe
from jobs.files import exists
from jobs.finding import Finding, failed, passed, warned

MOUNTS = Path("/proc/self/mountinfo")
# Types whose whole sense is that several machines see one folder.
SHARED = {
    "afs", "beegfs", "ceph", "cifs", "daos", "dvs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs",
    "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "wekafs",
    "fuse.beegfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.dfuse", "fuse.glusterfs", "fuse.juicefs",
    "fuse.lizardfs", "fuse.mfs", "fuse.moosefs", "fuse.quobyte", "fuse.sshfs",
}  # fmt: skip

# ResNet-50 without its last layer, in numbers of four bytes each; momentum takes as many.
BACKBONE_NUMBERS = 23_600_000
LAST_LAYER_INPUTS = 2048
# Generous for the snapshot of the code, logs and TensorBoard's files.
OTHER_BYTES = 50 * 10**6
OTHER_FILES = 1000
FULL = {errno.ENOSPC: "it is full", errno.EDQUOT: "your quota is used up"}
_LIBC = ctypes.CDLL(None, use_errno=True)


def check_shared(recipe: Recipe, is_one_machine: Callable[[], bool]) -> list[Finding]:
    """Whether all nodes see what a job needs, as far as types of file systems tell.

    `is_one_machine`: whether the nodes that the job may run on are all this machine.
    """
    paths = {"run.root": Path(recipe.run.root), "data.root": Path(recipe.data.root)}
    if recipe.model.weights:
        paths["model.weights"] = Path(recipe.model.weights)
    paths["the Python environment"] = Path(sys.prefix)
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        paths[f"its Python ({sys.base_prefix})"] = Path(sys.base_prefix)
    told = [Path(folder) for folder in recipe.cluster.shared]
    types: dict[str, None] = {}
    local: dict[tuple[str, Path], list[str]] = {}
    for what, path in paths.items():
        real = path.resolve()
        kind, mount = file_system(real)
        if kind in SHARED:
            types[kind] = None
        elif any(each.is_relative_to(folder) for each in (path, real) for folder in told):
            types["as cluster.shared says"] = None
        else:
            local.setdefault((kind, mount), []).append(what)
    if local and is_one_machine():
        return [passed("this machine is the only node")]
    findings = [_local(kind, mount, names) for (kind, mount), names in local.items()]
    return findings or [passed(f"every node sees all files ({', '.join(types)})")]


def _local(kind: str, mount: Path, names: list[str]) -> Finding:
    what = f"{', '.join(names[:-1])} and {names[-1]} lie" if names[1:] else f"{names[0]} lies"
    return warned(
        f"{what} on {kind} (mounted at {mount}), which other nodes may not see",
        "use storage that every node mounts; doctor --on-node tries it out. If they do see it, say "
        "so in configs/site.yaml, cluster.shared",
    )


def file_system(path: Path, mounts: Path = MOUNTS) -> tuple[str, Path]:
    """The type of the file system that holds a path without links, and where it is mounted."""
    found = "unknown", Path("/")
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        # Blanks in a name are written as \040.
        name = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), left.split()[4])
        # Of two at one place the later one is on top.
        if path.is_relative_to(name) and len(name) >= len(str(found[1])):
            found = right.split()[0], Path(name)
    return found


def check_root(root: Path) -> list[Finding]:
    """Whether the folder of all runs can be one, as far as can be told without writing."""
    existing = _existing(root)
    if "%" in str(root):
        text = f"{root}: Slurm and submitit give % a meaning of their own"
        return [failed(text, "choose a name without it", "run.root")]
    if not existing.is_dir():
        return [failed(f"{existing} is not a folder", "name a folder", "run.root")]
    if not os.access(existing, os.W_OK | os.X_OK):
        text = f"{existing} cannot be written by you"
        return [failed(text, "name a folder of yours or ask for the right to write", "run.root")]
    return _open_to_all(existing)


def _open_to_all(folder: Path) -> list[Finding]:
    """A warning where other users could put a folder of theirs in a run's place.

    Jobs start code and submitit's pickles from there. In a folder with the sticky bit, such as
    /tmp, only the owner of a name may replace it.
    """
    for each in (folder.resolve(), *folder.resolve().parents):
        mode = each.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            text = f"{each} can be written by everyone, who could so change the code of your jobs"
            return [warned(text, f"chmod o-w {each}, or name another folder", "run.root")]
    return []


def check_writing(recipe: Recipe) -> list[Finding]:
    """Write, flush, rename and remove a file of the run's size where runs are kept.

    A quota shows itself only so.
    """
    root = Path(recipe.run.root)
    if any(each.level == "fail" for each in check_root(root)):
        return []
    folder, needed = _existing(root), bytes_needed(recipe)
    has_room = _free_bytes(folder) >= needed  # if not, `check_space` says so
    try:
        _write(folder, needed if has_room else 4096)
    except OSError as error:
        if error.errno not in FULL:
            text = f"{folder} cannot be written ({error.strerror})"
            return [failed(text, "name a folder that can, or ask its administrators", "run.root")]
        return [_no_room(folder, f"{_gb(needed)} cannot be had: {FULL[error.errno]}")]
    return [passed(f"{root} can be written")]


def check_space(recipe: Recipe) -> list[Finding]:
    """Whether the file system of the runs has room for this one."""
    folder, needed = _existing(Path(recipe.run.root)), bytes_needed(recipe)
    room = _free_bytes(folder)
    if room < needed:
        few = room < checkpoint_bytes(recipe)
        return [_no_room(folder, f"has {_gb(room)} free, the run keeps {_gb(needed)}", few=few)]
    free = os.statvfs(folder)
    if free.f_files > 0 and free.f_favail < OTHER_FILES:
        return [_no_room(folder, f"has room for {free.f_favail} more files, the run makes many")]
    return [passed(f"{_gb(room)} free, the run keeps up to {_gb(needed)}")]


def check_home() -> list[Finding]:
    """Whether programs that keep files in the home folder will find room there."""
    home = os.environ.get("HOME")
    try:
        if home:
            _write(Path(home), 4096)
    except OSError as error:
        if error.errno not in FULL:
            return []  # Many a home is read-only or missing on purpose.
        text = f"your home folder {home} takes no file: {FULL[error.errno]}"
        return [warned(text, "make room there: shells and libraries write to it in every job")]
    return [passed(f"{home} can be written")]


def bytes_needed(recipe: Recipe) -> int:
    """What the run directory will come to: the checkpoints kept, the best and an unfinished one."""
    return (recipe.checkpoint.keep_last + 2) * checkpoint_bytes(recipe) + OTHER_BYTES


def checkpoint_bytes(recipe: Recipe) -> int:
    """The size of one checkpoint: weights, momentum, and the weights' average if there is one."""
    copies = 2 if recipe.train.ema_half_life is None else 3
    return copies * 4 * (BACKBONE_NUMBERS + (LAST_LAYER_INPUTS + 1) * recipe.model.num_classes)


def _no_room(folder: Path, text: str, *, few: bool = True) -> Finding:
    remedy = "make room, or name another folder as run.root"
    return (failed if few else warned)(f"{folder}: {text}", remedy, "run.root")


def _free_bytes(folder: Path) -> int:
    free = os.statvfs(folder)
    return free.f_bavail * free.f_frsize


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if exists(folder))


def _write(folder: Path, size: int) -> None:
    draft = folder / f".doctor-{secrets.token_hex(4)}"
    final = draft.with_suffix(".renamed")
    try:
        with draft.open("xb") as file:
            file.write(b"." * 4096)
            file.flush()
            _reserve(file.fileno(), size)
            os.fsync(file.fileno())
        draft.rename(final)
    finally:
        for path in (draft, final):
            with contextlib.suppress(OSError):
                path.unlink()


def _reserve(file: int, size: int) -> None:
    """Have the file system set `size` bytes aside, where it can.

    Raises:
        OSError: they cannot be had.
    """
    if sys.platform != "linux":
        return
    # Not os.posix_fallocate, which writes to every block where the file system cannot reserve.
    number = ctypes.c_int64
    if _LIBC.fallocate(file, 0, number(0), number(size)) and ctypes.get_errno() in FULL:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 50 * 10**6 else f"{size / 1e6:.1f} MB"
