"""A run directory: where each of its files lies, how it is built, how a person names it.

A run lies in ROOT/NAME/STAMP, an element of a sweep in ROOT/NAME/STAMP/ELEMENT.
"""

from __future__ import annotations

import contextlib
import operator
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jobs.errors import RequestError, WorkError
from jobs.interruption import meet_dropped, uninterrupted

TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
STAMP = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
SWEEP = "sweep.json"


def timestamp() -> str:
    """The time now, UTC, as the records of a run write it."""
    return datetime.now(UTC).strftime(TIME_FORMAT)


def seconds_of(stamp: str) -> float:
    """A timestamp as seconds since the epoch."""
    return datetime.strptime(stamp, TIME_FORMAT).replace(tzinfo=UTC).timestamp()


@contextlib.contextmanager
def warning(what: str) -> Iterator[None]:
    """Turn a failing write of the body into a warning: no record is worth the run itself."""
    try:
        yield
    except OSError as error:
        print(f"warning: {what}: {error}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class RunDirectory:
    """The paths inside one run directory; the directory itself may not exist yet."""

    path: Path

    @property
    def sweep(self) -> Path | None:
        """The folder of the sweep that the run is an element of."""
        return self.path.parent if STAMP.fullmatch(self.path.parent.name) else None

    @property
    def name(self) -> str:
        """`run.name` of the recipe, which several runs may share."""
        return (self.sweep or self.path).parent.name

    @property
    def label(self) -> str:
        """What people call the run: its path below the folder of all runs."""
        return "/".join(self.path.parts[-3 if self.sweep else -2 :])

    @property
    def config(self) -> Path:
        """The resolved recipe, the worker's only input."""
        return self.path / "config.yaml"

    @property
    def code(self) -> Path:
        """The snapshot that the job runs from."""
        return self.path / "code"

    @property
    def script(self) -> Path:
        """What was given to sbatch."""
        return self.path / "job.sbatch"

    @property
    def provenance(self) -> Path:
        """Where the run comes from."""
        return self.path / "provenance.json"

    @property
    def attempts(self) -> Path:
        """The attempt ledger."""
        return self.path / "attempts.jsonl"

    @property
    def metrics(self) -> Path:
        """What the worker wrote down while training."""
        return self.path / "metrics.jsonl"

    @property
    def results(self) -> Path:
        """What the worker wrote when the run had finished."""
        return self.path / "results.json"

    @property
    def mistakes(self) -> Path:
        """The test images that the finished model was wrong about and surest of."""
        return self.path / "mistakes.json"

    @property
    def checkpoints(self) -> Path:
        """The worker's checkpoints, each with its manifest."""
        return self.path / "checkpoints"

    @property
    def lease(self) -> Path:
        """Which start of the run holds the run directory."""
        return self.path / "lease.json"

    @property
    def claims(self) -> Path:
        """One empty file for each start that ever held the run directory."""
        return self.engine_files / "claims"

    @property
    def launcher_log(self) -> Path:
        """The story of the run: submitted, started, failed, requeued."""
        return self.path / "launcher.log"

    @property
    def engine_files(self) -> Path:
        """Files of whatever runs the job: submitit's pickles and logs, rendezvous, markers."""
        return self.path / "submitit"

    def attempt(self, number: int) -> Path:
        """The folder of one attempt's logs."""
        return self.path / f"attempt-{number:02d}"

    def rank_log(self, attempt: int, rank: int) -> Path:
        """What one rank's worker printed in one attempt."""
        return self.attempt(attempt) / f"rank-{rank:03d}.log"

    def cancelled(self, job: str) -> Path:
        """The marker that `cancel` leaves for one job, so that nothing starts it again."""
        return self.engine_files / f"{job}_cancelled"

    def note(self, text: str) -> None:
        """Append a line to the run's story; short appends of several ranks do not mix.

        A full disk costs the line and nothing else.
        """
        with warning(f"cannot note {text!r}"), self.launcher_log.open("a", encoding="utf-8") as log:
            log.write(f"{timestamp()} {text}\n")


def reserve(root: Path, name: str) -> RunDirectory:
    """Choose the place of a new run without making anything."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return RunDirectory(root / name / f"{stamp}-{secrets.token_hex(2)}")


@contextlib.contextmanager
def create(run: RunDirectory, mode: int, fill: Callable[[RunDirectory], None]) -> Iterator[None]:
    """Make `run`, filled by `fill`, for the body of the with; if that raises, remove it again.

    It is filled under a temporary name beside its own, so whoever looks at the runs never meets a
    half-made one.

    Raises:
        RequestError: the folder of the runs cannot be written.
        WorkError: nor can a file of the run, as where a quota is used up.
    """
    missing = [folder for folder in run.path.parents if not folder.exists()]
    draft = RunDirectory(run.path.with_name(f".{run.path.name}.partial"))
    try:
        try:
            # Whoever may write there could put a run of theirs in this one's place.
            draft.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            draft.path.mkdir(mode=mode)
        except OSError as error:
            raise RequestError(
                f"run.root: cannot write {run.path.parent}: {error.strerror}"
            ) from None
        try:
            fill(draft)
        except OSError as error:
            raise WorkError(f"the run cannot be made in {run.path.parent}: {error}") from None
        meet_dropped()
        draft.path.rename(run.path)
        yield
    except BaseException:
        with uninterrupted():  # an impatient second Ctrl-C
            for path in (draft.path, run.path):
                shutil.rmtree(path, ignore_errors=True)
            _remove_empty(missing)
        raise


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def all_runs(root: Path) -> list[RunDirectory]:
    """Every run below `root` that may be read, oldest first, elements of a sweep in their order."""
    found: list[tuple[tuple[str, float, int], RunDirectory]] = []
    # Each look takes its time on network storage, and there may be thousands of runs.
    for folder in (each for name in _listed(root) for each in _listed(name)):
        # It may be another user's, or be deleted at this moment.
        with contextlib.suppress(OSError):
            found += [(_age(run), run) for run in _runs_in(folder)]
    return [run for _, run in sorted(found, key=operator.itemgetter(0))]


def _listed(folder: Path) -> list[Path]:
    """What a folder holds that is not hidden; nothing if it is none, or may not be listed."""
    with contextlib.suppress(OSError):
        return [each for each in folder.iterdir() if not each.name.startswith(".")]
    return []


def _runs_in(folder: Path) -> list[RunDirectory]:
    """The run that a folder is, or those of a sweep; none if it is something else."""
    if (run := RunDirectory(folder)).config.exists():
        return [run]
    if (folder / SWEEP).exists():
        return [RunDirectory(config.parent) for config in folder.glob("*/config.yaml")]
    return []


def _age(run: RunDirectory) -> tuple[str, float, int]:
    # Some runs have the same second in their stamp, and some folders were named by a person.
    own = run.sweep or run.path
    index = run.path.name.partition("-")[0] if run.sweep else ""
    return own.name[:15], own.stat().st_mtime, int(index) if index.isdecimal() else 0


def find_one(text: str | None, root: Path) -> RunDirectory:
    """The one run that `text` names: a directory, a run's name (its newest) or a unique part.

    Raises:
        RequestError: no run is so named, or several are.
    """
    found = find_together(text, root)
    if len(found) > 1:
        raise _too_many(text or found[0].name, found, "a sweep of")
    return found[0]


def find_together(text: str | None, root: Path) -> list[RunDirectory]:
    """The one run that `text` names as in `find_one`, or all elements of the one sweep.

    Raises:
        RequestError: nothing is so named, or several runs that are no sweep are.
    """
    matches = find_many([text] if text else [], root)
    newest = matches[-1]
    together = [
        run for run in matches if run == newest or (run.sweep and run.sweep == newest.sweep)
    ]
    if text and len(together) < len(matches) and {run.name for run in matches} != {text}:
        raise _too_many(text, matches, "part of")
    return together


def find_many(texts: list[str], root: Path) -> list[RunDirectory]:
    """All runs that any of `texts` names, oldest first; every run where none is given.

    Raises:
        RequestError: a text names no run, or there are no runs.
    """
    if texts:
        return list(dict.fromkeys(run for text in texts for run in _matches(text, root)))
    runs = all_runs(root)
    if not runs:
        raise RequestError(
            f"there are no runs in {root}; start one with: python launch.py --config C"
        )
    return runs


def _too_many(text: str, found: list[RunDirectory], what: str) -> RequestError:
    labels = ", ".join(run.label for run in found[-5:])
    return RequestError(f"{text!r} is {what} {len(found)} runs: {labels}; give more of it")


def _matches(text: str, root: Path) -> list[RunDirectory]:
    path = Path(text).absolute()
    if (path / "config.yaml").is_file():
        return [RunDirectory(path.resolve())]
    if (path / SWEEP).is_file():
        runs = all_runs(path.resolve().parents[1])
        return [run for run in runs if run.sweep == path.resolve()]
    wanted = text.strip("/").removeprefix("logs/")
    runs = all_runs(root)
    found = [run for run in runs if wanted in _names(run)]
    found = found or [run for run in runs if wanted in run.label]
    if not found:
        raise RequestError(f"no run in {root} is called {text!r}; see: python launch.py status")
    return found


def _names(run: RunDirectory) -> set[str]:
    names = {run.label, run.path.name, run.name}
    return names | {run.sweep.name, f"{run.name}/{run.sweep.name}"} if run.sweep else names
