"""Loads a recipe: finds it, merges its layers, checks them and makes its paths absolute.

Layers, later ones winning key by key: the schema's defaults, `configs/site.yaml` (if there is one;
it sets `cluster.*` and `run.root`), the file that `_base_` includes, the recipe, the overrides.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from string import Template

from configs import yaml12
from configs.explain import Key, shown
from configs.schema import Recipe
from configs.settings import Layer, Place, RecipeError, Settings

FOLDER = Path(__file__).absolute().parent
SITE = "site.yaml"
BASE = "_base_"
RUN_NAME: Key = ("run", "name")
PATHS: tuple[Key, ...] = (("run", "root"), ("data", "root"), ("model", "weights"))


@dataclass(frozen=True)
class LoadedRecipe:
    """A complete recipe, its file, and where each key that is not at its default was set.

    `origins` maps a dotted key to "configs/finetune.yaml:12", "configs/site.yaml:3" or "--set".
    `bases` are the files that it includes, `written` the paths in it by their keys, unexpanded.
    """

    recipe: Recipe
    path: Path
    origins: dict[str, str]
    bases: tuple[Path, ...] = ()
    written: dict[str, str] = field(default_factory=dict)


def load_recipe(
    recipe: str, overrides: Sequence[str] = (), *, folder: Path = FOLDER
) -> LoadedRecipe:
    """Return the recipe in the file `recipe` with `overrides`, each a "section.key=value".

    A bare name, with or without `.yaml`, that is no file here is looked up in `folder`, which may
    also hold `site.yaml`; a bare name after `_base_`, beside the file and then in `folder`. The
    result is complete and means the same on every node and from every working directory:
    `run.name` is filled in, `~` and `$VARIABLE` in paths are expanded with this process's
    environment, and relative paths start at the project folder, the parent of `folder`.

    Raises:
        RecipeError: with all that is wrong, not only the first problem.
    """
    path = _find(recipe, folder)
    settings = Settings()
    layers, bases = _read_with_bases(path, folder, settings)
    if _is_file(folder / SITE):
        settings.add_site(_read(folder / SITE, len(layers), settings))
    for layer in reversed(layers):
        settings.add_file(layer)
    for rank, override in enumerate(overrides, start=len(layers) + 1):
        settings.add_override(override, rank)
    origins = settings.origins()

    whole_file = Place(0, 0, layers[0].label)
    if settings.value(RUN_NAME) == "":
        settings.replace(RUN_NAME, path.stem, whole_file)
    written = {".".join(key): settings.value(key) for key in PATHS}
    for key in PATHS:
        _make_absolute(settings, key, folder.parent, whole_file)
    return LoadedRecipe(settings.recipe(), path.absolute(), origins, bases, written)


def read_resolved(path: Path) -> Recipe:
    """Return the recipe that `dump_recipe` wrote to `path`, a run's config.yaml.

    It stands alone: nothing is included, looked up in the environment or made absolute.

    Raises:
        RecipeError: with all that is wrong with it.
    """
    return change_resolved(path, []).recipe


def change_resolved(
    path: Path, overrides: Sequence[str], *, project: Path = FOLDER.parent
) -> LoadedRecipe:
    """Return what `read_resolved` does with `overrides`, whose paths are as in `load_recipe`.

    Raises:
        RecipeError: with all that is wrong.
    """
    settings = Settings()
    settings.add_file(_read(path, 0, settings))
    resolved = {key: settings.values.get(key) for key in PATHS}
    for rank, override in enumerate(overrides, start=1):
        settings.add_override(override, rank)
    for key in PATHS:
        if settings.values.get(key) != resolved[key]:
            _make_absolute(settings, key, project, settings.values[key].place)
    return LoadedRecipe(settings.recipe(), path.absolute(), settings.origins())


def dump_recipe(recipe: Recipe) -> str:
    """Return `recipe` as complete YAML in the schema's order, which `read_resolved` reads back."""
    return yaml12.dump(recipe.model_dump())


def _find(recipe: str, folder: Path) -> Path:
    path = Path(recipe)
    candidates = [path]
    if path.name == recipe:
        candidates += [folder / recipe, folder / f"{recipe}.yaml"]
    for candidate in candidates:
        if _is_file(candidate):
            return candidate
    problem = "is a folder" if path.is_dir() else _no_such_file(path.name, folder)
    raise RecipeError([f"{recipe}: {problem}"])


def _read_with_bases(
    path: Path, folder: Path, settings: Settings
) -> tuple[list[Layer], tuple[Path, ...]]:
    """Return the layers of a recipe, of the file it includes, of the file that one includes, ...

    And the included files.
    """
    chain = [path]
    layers = [_read(path, 0, settings)]
    while (BASE,) in layers[-1].document.lines:
        name, place = layers[-1].document.value.pop(BASE), layers[-1].place((BASE,))
        if not isinstance(name, str):
            settings.report(place, f"expected the name of one file, got {shown(name)}", (BASE,))
            break
        base = path.parent / name
        if not _is_file(base) and base.parent == path.parent and _is_file(folder / name):
            base = folder / name
        if not _is_file(base):
            places = (base.parent, folder) if base.parent == path.parent else (base.parent,)
            settings.report(place, _no_such_file(name, *places), (BASE,))
            break
        chain.append(base)
        if base.resolve() in [file.resolve() for file in chain[:-1]]:
            files = " -> ".join(map(_label, chain))
            settings.report(place, f"these files include each other: {files}", (BASE,))
            break
        layers.append(_read(base, len(layers), settings))
        path = base
    return layers, tuple(base.absolute() for base in chain[1:])


def _read(path: Path, rank: int, settings: Settings) -> Layer:
    """Return the content of a file; what is wrong with it as a whole is reported to `settings`."""
    label = _label(path)
    place = Place(rank, 0, label)
    try:
        document = yaml12.read(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        settings.report(place, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        settings.report(place, f"is not UTF-8 text, from byte {error.start} on")
    except yaml12.YamlError as error:
        place = Place(rank, error.line, f"{label}:{error.line}:{error.column}")
        settings.report(place, f"not valid YAML: {error}")
    else:
        if document.value is None or isinstance(document.value, dict):
            return Layer(label, rank, document)
        message = "expected sections such as 'optimizer:' with 'lr: 0.1' below, got "
        settings.report(place, message + shown(document.value))
    return Layer(label, rank, yaml12.Document({}))


def _make_absolute(settings: Settings, key: Key, project: Path, whole_file: Place) -> None:
    path = settings.value(key)
    if not isinstance(path, str) or not path:
        return
    try:
        settings.replace(key, str(project / _expand(path)), whole_file)
    except ValueError as error:
        settings.report(settings.values[key].place, f"{error}; got {shown(path)}", key)


def _expand(path: str) -> Path:
    """Return `path` with the values of its variables and of `~`."""
    # An empty variable would turn $SCRATCH/runs into /runs.
    variables = {name: value for name, value in os.environ.items() if value}
    try:
        return Path(Template(path).substitute(variables)).expanduser()
    except KeyError as error:
        raise ValueError(f"the variable {error.args[0]} is not set, or empty") from error
    except ValueError as error:
        raise ValueError("write $NAME for a variable, $$ for the character '$'") from error
    except RuntimeError as error:
        raise ValueError("'~' leads to nobody's home folder") from error


def _is_file(path: Path) -> bool:
    """Tell whether there is something to read at `path`, so not if it is a folder."""
    try:
        return path.exists() and not path.is_dir()
    except OSError:  # not ours to look at, or too long a name: reading it will tell
        return True


def _label(path: Path) -> str:
    """Return the shorter of the path as it is and the path from the working directory."""
    return min(os.path.relpath(path), str(path), key=len)


def _no_such_file(name: str, *folders: Path) -> str:
    message, known = "no such file", list[str]()
    for folder in dict.fromkeys(folder.absolute() for folder in folders):
        files = (file.name for file in folder.glob("*.yaml"))
        names = sorted(file for file in files if not file.startswith("site."))
        message += f"; {folder.name}/ has {', '.join(names) or 'no recipes'}"
        known += [*names, *(Path(file).stem for file in names)]
    near = get_close_matches(name, known, 1)
    return f"{message}; did you mean '{near[0]}'?" if near else message
