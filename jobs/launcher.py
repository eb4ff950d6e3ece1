"""From a recipe to a run: choose the engine, check, make the run directory, start.

Everything that can be refused is refused before the run directory exists, all problems at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from configs.loader import LoadedRecipe, dump_recipe
from configs.schema import Recipe
from jobs import controller, engine, layout, preflight, provenance, repository, rundir, snapshot
from jobs.engine import Engine
from jobs.errors import Problem, RefusedError, RequestError, locate, place_of
from jobs.files import write_json
from jobs.layout import Layout
from jobs.rundir import RunDirectory
from jobs.text import next_commands, path_from_here


def launch(loaded: LoadedRecipe, command: Sequence[str]) -> int:
    """Check a recipe and start it; returns the exit code.

    Raises:
        RequestError: with every problem found; nothing was made.
    """
    recipe = loaded.recipe
    chosen = engine.choose(recipe)
    if chosen.problem:
        raise RequestError(f"{place_of('cluster.engine', loaded.origins)}: {chosen.problem}")
    announce(chosen)
    plan, problems = check(loaded, chosen)
    if plan is None or problems:
        raise RequestError(*problems)
    run = rundir.reserve(Path(recipe.run.root), recipe.run.name)
    if chosen.name == "slurm":
        return _submit(recipe, plan, run, command)

    from jobs import local

    with rundir.create(run, lambda draft: fill(draft, recipe, command)):
        pass
    return local.run_attached(run, recipe, plan)


def show(loaded: LoadedRecipe) -> int:
    """Print what `launch` would submit, and the resolved recipe, and make nothing.

    Raises:
        RequestError: with every problem that `launch` would find, after printing.
    """
    recipe = loaded.recipe
    chosen = engine.choose(recipe)
    announce(chosen)
    plan, problems = check(loaded, chosen)
    if plan and chosen.name == "slurm":
        from jobs import slurm

        run = rundir.reserve(Path(recipe.run.root), recipe.run.name)
        print(f"# job.sbatch\n{slurm.make_executor(recipe, plan, run).script()}", end="")
    print(f"# config.yaml\n{dump_recipe(recipe)}", end="")
    if chosen.problem:
        print(f"not checked with Slurm: {chosen.problem}", file=sys.stderr)
    if problems:
        raise RequestError(*problems)
    return 0


def check(
    loaded: LoadedRecipe, chosen: Engine, *, ask_slurm: bool = True
) -> tuple[Layout | None, list[str]]:
    """The workers that a recipe means on an engine, and everything that is wrong with it."""
    recipe = loaded.recipe
    problems = preflight.check_inputs(recipe)
    plan = None
    try:
        plan = (
            layout.on_slurm(recipe)
            if chosen.name == "slurm"
            else layout.on_this_machine(recipe, layout.count_gpus())
        )
    except RefusedError as error:
        problems += error.problems
    if plan:
        problems += preflight.check_shares(recipe, plan)
    located = locate(problems, loaded.origins)
    if plan and chosen.name == "slurm" and ask_slurm:
        located += _ask_slurm(loaded, plan, reachable=chosen.problem is None)
    return plan, located


def _ask_slurm(loaded: LoadedRecipe, plan: Layout, *, reachable: bool) -> list[str]:
    """What Slurm has against the very script that would be submitted."""
    from jobs import slurm

    recipe = loaded.recipe
    options = slurm.check_options(recipe.cluster)
    if options or not reachable:
        return locate(options, loaded.origins)
    run = rundir.reserve(Path(recipe.run.root), recipe.run.name)

    def refusal(tried: Recipe, workers: Layout) -> str | None:
        return controller.test_only(slurm.make_executor(tried, workers, run).script())

    words = refusal(recipe, plan)
    if words is None:
        return []
    culprit = preflight.find_culprit(
        recipe, lambda tried: refusal(tried, layout.on_slurm(tried)) is None
    )
    if culprit is None:
        return [f"cluster: Slurm refuses this job, and no single key is the cause:\n  {words}"]
    value = _value_of(recipe, culprit)
    return locate([Problem(culprit, f"Slurm refuses {value}:\n  {words}")], loaded.origins)


def _value_of(recipe: Recipe, key: str) -> object:
    section, name, *option = key.split(".", 2)
    value = getattr(getattr(recipe, section), name)
    return value[option[0]] if option else value


def _submit(recipe: Recipe, plan: Layout, run: RunDirectory, command: Sequence[str]) -> int:
    from jobs import slurm

    executor = slurm.make_executor(recipe, plan, run)

    def fill_all(draft: RunDirectory) -> None:
        fill(draft, recipe, command)
        slurm.write_files(draft, executor, final=run)

    with rundir.create(run, fill_all):
        job = slurm.submit(run, executor)
    run.note(f"submitted as job {job}")
    print(f"submitted job {job}: {plan.describe()}")
    print(f"run directory: {path_from_here(run.path)}")
    print(next_commands(run, ("status", "logs -f", "tensorboard", "cancel")))
    return 0


def fill(draft: RunDirectory, recipe: Recipe, command: Sequence[str]) -> None:
    """Put in what every run has on every engine: the recipe, the code, where they come from."""
    draft.engine_files.mkdir()
    draft.config.write_text(dump_recipe(recipe), encoding="utf-8")
    code_sha256 = snapshot.copy_code(draft.code, Path(recipe.run.root) / snapshot.STORE)
    write_json(draft.provenance, provenance.collect(recipe, code_sha256, command))


def announce(chosen: Engine) -> None:
    """Say where it goes and why."""
    print(f"engine: {chosen.name} ({chosen.why})", file=sys.stderr)
    if words := repository.refusal():
        print(
            "warning: git does not read this project, so provenance.json names no commit, and "
            f"code/ has every file, ignored ones too:\n{words}",
            file=sys.stderr,
        )
