"""The wheels of a bundle: what requirements.lock names, for one Python and one platform.

Which lines of the lock apply is worked out here, for pip evaluates their markers for the Python
that runs it, whatever `--python-version` says (github.com/pypa/pip/issues/10050); and an older
manylinux tag than the platform's own is only found where it is named, too (issue 10760).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from jobs.errors import WorkError
from jobs.manifest import Facts, measure
from jobs.meter import Meter
from jobs.notes import Notes
from jobs.repository import PROJECT
from jobs.target import Target

LOCK = PROJECT / "requirements.lock"
# The one place that has PyTorch's builds without CUDA; all else comes from pip's own index.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_BUILDS = ("torch", "torchvision")
# What only the builds with CUDA need.
CUDA_ONLY = re.compile(r"(nvidia|cuda)-|triton$")

# Where pip puts a wheel until it is known to be the right one.
INBOX = ".inbox"

PINNED = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s;]+)\s*(?:;\s*(?P<marker>.+))?")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Requirement:
    """One pinned package; `hashes` are the SHA-256 of its files, none if nobody has told them."""

    name: str
    version: str
    hashes: frozenset[str] = frozenset()

    @property
    def pin(self) -> str:
        """As pip takes it."""
        return f"{self.name}=={self.version}"


@dataclass
class Wheelhouse:
    """What became of the wheels: each requirement's, and the requirements that have none."""

    wheels: dict[Requirement, tuple[str, Facts]] = field(default_factory=dict)
    missing: list[Requirement] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, Facts]:
        """What each wheel is, by its name."""
        return dict(self.wheels.values())

    @property
    def requirements(self) -> str:
        """What `pip install --require-hashes` takes: these wheels and no others."""
        lines = (
            f"{requirement.pin} --hash=sha256:{facts.sha256}\n"
            for requirement, (_, facts) in self.wheels.items()
        )
        return "".join(sorted(lines))


def read_lock(text: str, target: Target) -> list[Requirement]:
    """The requirements that apply to a target, from the text of a lock file."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        match = PINNED.match(line.partition(" --hash")[0].strip())
        if not match:
            continue  # a comment
        name, version = canonicalize_name(match["name"]), match["version"]
        if match["marker"] and not target.applies(match["marker"]):
            continue
        if target.torch == "cpu" and CUDA_ONLY.match(name):
            continue
        if target.torch == "cpu" and name in CPU_BUILDS:
            # Other files than those that the lock knows the hashes of.
            found.append(Requirement(name, f"{version}+cpu"))
        else:
            found.append(Requirement(name, version, frozenset(HASH.findall(line))))
    return found


def fill(folder: Path, target: Target, notes: Notes, lock: Path = LOCK) -> Wheelhouse:
    """Have the wheels for `target` in a folder: keep those that are right, fetch the others.

    Args:
        folder: the wheelhouse; wheels that are not for this target are removed from it.
        target: what it is for.
        notes: of the bundle, where wheels that the lock has no hash of are noted as they come.
        lock: the lock file.

    Returns:
        what is there, and what is missing because pip could not fetch it.

    Raises:
        OSError: the folder cannot be read or written.
    """
    folder.mkdir(exist_ok=True)
    shutil.rmtree(folder / INBOX, ignore_errors=True)  # of a call that was killed
    requirements = read_lock(lock.read_text(encoding="utf-8"), target)
    house = Wheelhouse()
    _keep(folder, target, requirements, notes, house)
    wanted = [each for each in requirements if each not in house.wheels]
    for number, requirement in enumerate(wanted, start=1):
        print(f"wheel {number} of {len(wanted)}: {requirement.pin}", file=sys.stderr, flush=True)
        fetched = _download(folder, target, requirement)
        if fetched is None:
            # What one of them meets, all would: pip takes its time over each.
            house.missing = wanted[number - 1 :]
            break
        house.wheels[requirement] = fetched
        if not requirement.hashes:
            notes.add(folder / fetched[0], fetched[1])
    return house


def _keep(
    folder: Path,
    target: Target,
    requirements: list[Requirement],
    notes: Notes,
    house: Wheelhouse,
) -> None:
    """Take what is there already, and remove the rest."""
    wanted = {(each.name, Version(each.version)): each for each in requirements}
    present = sorted(path for path in folder.iterdir() if not path.is_dir())
    with Meter("verifying wheels", sum(path.stat().st_size for path in present)) as meter:
        for path in present:
            try:
                name, version, _, tags = parse_wheel_filename(path.name)
            except InvalidWheelFilename:
                _remove(path, "is no wheel")
                continue
            requirement = wanted.get((name, version))
            if requirement is None or not tags & target.tags:
                _remove(path, "is not of this bundle")
                continue
            facts = measure(path, meter)
            if not _is_right(path, facts, requirement, notes):
                _remove(path, "is damaged")
            elif requirement in house.wheels:
                _remove(path, "is there in another build")
            else:
                house.wheels[requirement] = (path.name, facts)


def _is_right(path: Path, facts: Facts, requirement: Requirement, notes: Notes) -> bool:
    if requirement.hashes:
        return facts.sha256 in requirement.hashes
    if notes.fit(path, facts):
        return True
    if not _is_whole(path):
        return False
    # Placed here by hand, as a person is told to where pip finds none.
    print(
        f"{path}: nobody has told its SHA-256; taken as it is, {facts.sha256}",
        file=sys.stderr,
        flush=True,
    )
    notes.add(path, facts)
    return True


def _is_whole(wheel: Path) -> bool:
    """Whether a wheel holds what its own checksums say, so that half a copy shows."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError):
        return False


def _remove(path: Path, why: str) -> None:
    print(f"removed {path}: {why}", file=sys.stderr)
    path.unlink()


def _download(folder: Path, target: Target, requirement: Requirement) -> tuple[str, Facts] | None:
    """Let pip fetch one wheel; its name and what it is, or None if pip could not."""
    inbox = folder / INBOX
    inbox.mkdir()
    try:
        pinned = inbox / "requirement.txt"
        hashes = "".join(f" --hash=sha256:{each}" for each in sorted(requirement.hashes))
        pinned.write_text(f"{requirement.pin}{hashes}\n", encoding="utf-8")
        command = pip_command(target, requirement, pinned, inbox)
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
            return None
        wheels = list(inbox.glob("*.whl"))
        if len(wheels) != 1:
            return None
        facts = measure(wheels[0])
        # pip copies it out of its cache without looking again.
        if requirement.hashes and facts.sha256 not in requirement.hashes:
            raise WorkError(f"what pip fetched for {requirement.pin} is damaged; try once more")
        wheels[0].replace(folder / wheels[0].name)
        return wheels[0].name, facts
    finally:
        shutil.rmtree(inbox, ignore_errors=True)


def pip_command(target: Target, requirement: Requirement, pinned: Path, to: Path) -> list[str]:
    """The command that fetches one wheel for `target`, whatever this machine is."""
    # The lock has all that is needed, so pip need not ask what needs what.
    command = [sys.executable, "-m", "pip", "download", "--no-deps"]
    if not sys.stderr.isatty():
        command += ["--quiet"]
    command += ["--disable-pip-version-check", "--retries", "2"]
    command += ["--only-binary", ":all:", "--python-version", target.python]
    command += ["--implementation", "cp"]
    for platform in target.platforms:
        command += ["--platform", platform]
    if requirement.hashes:
        command += ["--require-hashes"]
    else:
        command += ["--index-url", CPU_INDEX]
    return [*command, "--dest", str(to), "--requirement", str(pinned)]
