"""`stage`: on a connected machine, one folder with all that a cluster without internet needs.

A call goes on where an earlier one ended, for whatever reason: what is there and right is kept.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.filesize import decimal

from configs.loader import FOLDER, LoadedRecipe
from jobs import bundle, manifest, repository, wheelhouse
from jobs.download import UnreachableError, discard_partial, fetch
from jobs.errors import NEXT_LINE, RequestError, WorkError
from jobs.files import write_whole
from jobs.manifest import Facts, measure
from jobs.notes import Notes
from jobs.sources import SOURCES, Source, archive_source, weights_source
from jobs.target import Target
from jobs.text import count


def stage(
    folder: Path,
    loaded: LoadedRecipe,
    overrides: Sequence[str],
    target: Target,
    brought: Sequence[Path],
) -> int:
    """Make a bundle, or go on with one.

    Args:
        folder: where it is made.
        loaded: the recipe that says which data and weights.
        overrides: what `--set` has changed of it.
        target: the Python, platform and build of torch on the cluster.
        brought: files of this machine to take instead of fetching them.

    Returns:
        0.

    Raises:
        RequestError: such a bundle cannot be made.
        WorkError: something is missing; what has come is kept.
    """
    files = bundle.project_files(folder)
    arguments = _recipe_arguments(loaded, overrides, files)
    wanted = _wanted(loaded)
    offered = _match(brought, wanted)
    try:
        with bundle.opened(folder):
            return _fill(folder, wanted, offered, target, files, arguments)
    except OSError as error:
        where = error.filename or folder
        raise WorkError(f"{where}: {error.strerror or error}; what has come is kept") from None


def _fill(
    folder: Path,
    wanted: dict[Path, Source],
    offered: dict[Path, Path],
    target: Target,
    files: Sequence[Path],
    arguments: Sequence[str],
) -> int:
    notes = Notes(folder)
    missing = [
        _explain_unknown(source, f"{source.name} is missing")
        for place, source in wanted.items()
        if source.address is None and place not in offered and not (folder / place).is_file()
    ]
    if missing:  # so that nobody waits for gigabytes first
        raise WorkError("\nerror: ".join(missing))
    facts: dict[str, Facts] = {}
    for place, source in wanted.items():
        try:
            found = _gather(folder / place, source, offered.get(place), notes)
        except WorkError as error:
            missing.append(str(error))
        else:
            facts[place.as_posix()] = found
            notes.add(folder / place, found)
    house = wheelhouse.fill(folder / bundle.WHEELS, target, notes)
    if house.missing:
        missing.append(_explain_wheels(folder, target, house))
    if missing:
        again = "the bundle is not complete; the same command again keeps what is there"
        raise WorkError("\nerror: ".join([*missing, again]))
    facts |= {f"{bundle.WHEELS}/{name}": each for name, each in house.facts.items()}
    facts |= _keep_earlier(folder, notes, facts)

    write_whole(folder / bundle.REQUIREMENTS, house.requirements)
    bundle.pack_project(folder / bundle.ARCHIVE, files)
    bundle.write_texts(folder, target, arguments, shlex.join(arguments))
    for name in (
        bundle.REQUIREMENTS,
        bundle.ARCHIVE,
        bundle.FACTS,
        bundle.README,
        bundle.INSTALLER,
    ):
        facts[name] = measure(folder / name)
    about = {
        "commit": repository.commit(),
        "python": target.python,
        "platform": target.platform,
        "torch": target.torch,
        "arguments": list(arguments),
    }
    sums = manifest.write(folder, facts, about)
    notes.clear()
    _report(folder, facts, sums)
    return 0


def _recipe_arguments(
    loaded: LoadedRecipe, overrides: Sequence[str], files: Sequence[Path]
) -> list[str]:
    """What the cluster's command line says to mean the same recipe.

    Raises:
        RequestError: the recipe is not carried.
    """
    project, recipe = FOLDER.parent, loaded.recipe
    path = loaded.path
    for each in (path, *(Path(os.path.normpath(base)) for base in loaded.bases)):
        if not each.is_relative_to(project) or each.relative_to(project) not in files:
            raise RequestError(
                f"{each} is not among the project's files, so it would not be carried; "
                f"copy it into {FOLDER}"
            )
    if any("\n" in each for each in overrides):
        raise RequestError("a --set of more than one line cannot be carried; put it into a recipe")
    name = path.name if path.parent == FOLDER else path.relative_to(project).as_posix()
    arguments = ["--config", name]
    for override in overrides:
        arguments += ["--set", override]
    # What lies below this project lies below the cluster's, wherever that is.
    archive_root = recipe.data.root if recipe.data.source == "archive" else None
    for key, named in (("data.root", archive_root), ("model.weights", recipe.model.weights)):
        written = loaded.written[key]
        if named and (Path(written).is_absolute() or written.startswith(("~", "$"))):
            place = _place(Path(named), key).relative_to(bundle.FILES)
            arguments += ["--set", f"{key}={json.dumps(place.as_posix().replace('$', '$$'))}"]
    return arguments


def _wanted(loaded: LoadedRecipe) -> dict[Path, Source]:
    """What the recipe reads, by its place in the bundle."""
    recipe = loaded.recipe
    wanted = {}
    if recipe.data.source == "archive":
        place = _place(Path(recipe.data.root), "data.root")
        wanted[place / recipe.data.archive] = archive_source(recipe.data)
    if recipe.model.weights:
        place = _place(Path(recipe.model.weights), "model.weights")
        wanted[place] = weights_source(place.name)
    return wanted


def _place(named: Path, key: str) -> Path:
    # Without `..`, which would lead out of the bundle as it leads out of the project.
    path, project = (Path(os.path.normpath(each)) for each in (named, FOLDER.parent))
    if not path.is_relative_to(project):
        raise RequestError(
            f"{key} is {path}, outside of the project; a bundle carries what lies below it: "
            f"name a relative path by --set {key}=..."
        )
    return bundle.FILES / path.relative_to(project)


def _match(brought: Sequence[Path], wanted: dict[Path, Source]) -> dict[Path, Path]:
    """Which of the files that a person names is which of those that are wanted.

    Raises:
        RequestError: one is none of them, or cannot be read.
    """
    offered: dict[Path, Path] = {}
    problems = []
    for path in brought:
        try:
            places = [place for place, source in wanted.items() if source.name == path.name]
            places = places or _places_by_content(path, wanted)
        except OSError as error:
            problems.append(f"--from {path}: {error.strerror}")
            continue
        if not places:
            names = ", ".join(source.name for source in wanted.values()) or "nothing"
            problems.append(
                f"--from {path}: neither its name nor its content is that of a file that the "
                f"recipe reads ({names}); rename it, or name it by --set model.weights=weights/..."
            )
        offered |= dict.fromkeys(places, path)
    if problems:
        raise RequestError(*problems)
    return offered


def _places_by_content(path: Path, wanted: dict[Path, Source]) -> list[Path]:
    facts = measure(path)
    return [
        place
        for place, source in wanted.items()
        if source.is_known_by_content() and source.objection(facts) is None
    ]


def _gather(place: Path, source: Source, offered: Path | None, notes: Notes) -> Facts:
    """Have one file in its place: the one there, the one offered, or the published one.

    Raises:
        WorkError: none of them is right; says what helps.
        OSError: this disk is full, or the like.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    if offered is not None:
        return _take(place, source, offered)
    if not place.is_file():
        return _fetch(place, source)
    facts = measure(place)
    if objection := source.objection(facts):
        if source.address is None:
            raise WorkError(_explain_unknown(source, f"{place} {objection},"))
        print(f"{place} {objection}; it is replaced", file=sys.stderr, flush=True)
        return _fetch(place, source)
    if not source.is_known_by_content() and notes.have(place) and not notes.fit(place, facts):
        raise WorkError(
            f"{place} is not the file that was packed before, and nobody knows which one is right; "
            f"bring it again by --from, or take this one by --from {shlex.quote(str(place))}"
        )
    return facts


def _take(place: Path, source: Source, offered: Path) -> Facts:
    try:
        facts = measure(offered)
    except OSError as error:
        raise WorkError(f"--from {offered}: {error.strerror}") from None
    if objection := source.objection(facts):
        raise WorkError(f"--from {offered}: it {objection}, as {source.name} should")
    if not place.is_file() or measure(place) != facts:
        bundle.copy_whole(offered, place, facts)
    discard_partial(place)
    return facts


def _explain_unknown(source: Source, what: str) -> str:
    known = ""
    if source.name in SOURCES:
        known = ", for data.md5 is not that of the published archive"
    return f"{what} and its address is not known{known}; {_by_hand(source)}"


def _by_hand(source: Source) -> str:
    return f"give it to this command by --from {shlex.quote(source.name)}"


def _fetch(place: Path, source: Source) -> Facts:
    print(f"fetching {source.address}", file=sys.stderr, flush=True)
    try:
        return fetch(source, place)
    except UnreachableError as error:
        raise WorkError(
            f"{source.name} is missing, and there is no way to the network ({error}){NEXT_LINE}"
            f"fetch {source.address} where there is one, and {_by_hand(source)}"
        ) from None
    except WorkError as error:
        raise WorkError(
            f"{source.name} is missing: {error}{NEXT_LINE}"
            f"or fetch it by other means, and {_by_hand(source)}"
        ) from None


def _explain_wheels(folder: Path, target: Target, house: wheelhouse.Wheelhouse) -> str:
    number = len(house.missing)
    names = ", ".join(each.pin for each in house.missing[:3]) + (", ..." if number > 3 else "")
    return (
        f"{count(number, 'wheel')} for Python {target.python} on {target.platform} missing: "
        f"{names}; what pip says is above{NEXT_LINE}give pip an index that has them, or put them "
        f"into {folder / bundle.WHEELS} by hand"
    )


def _keep_earlier(folder: Path, notes: Notes, facts: dict[str, Facts]) -> dict[str, Facts]:
    """Data and weights of earlier calls, so that one bundle can carry several; others are told."""
    kept = {}
    for name in sorted(manifest.names_in(folder / bundle.FILES)):
        path = f"{bundle.FILES}/{name}"
        if path in facts:
            continue
        found = measure(folder / path)
        if notes.fit(folder / path, found):
            kept[path] = found
        else:
            print(
                f"warning: {folder / path} is not of this bundle; remove it, or {bundle.INSTALLER} "
                "will refuse the bundle",
                file=sys.stderr,
            )
    return kept


def _report(folder: Path, facts: dict[str, Facts], sums: str) -> None:
    whole = sum(each.size for each in facts.values())
    carried = [name for name in facts if name.startswith(f"{bundle.FILES}/")]
    wheels = sum(name.startswith(f"{bundle.WHEELS}/") for name in facts)
    print(f"{folder}: {count(len(facts), 'file')}, {decimal(whole)}")
    for name in sorted(carried):
        print(f"  {name}  {decimal(facts[name].size)}  SHA-256 {facts[name].sha256}")
    print(f"  {count(wheels, 'wheel')}, {bundle.ARCHIVE}, {bundle.INSTALLER}")
    print(f"SHA-256 of {manifest.SUMS}: {sums}")
    print(f"carry the folder to the cluster, and there: {folder.name}/{bundle.INSTALLER}")
