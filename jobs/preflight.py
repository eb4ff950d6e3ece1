"""The checks before anything is queued or made, in one table: `doctor` makes all, a launch some.

A launch makes those that are quick and refuses what is certain to fail.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from configs.schema import Recipe
from jobs import environment, inputs, layout, site, storage, trial
from jobs.engine import Engine
from jobs.errors import Problem, RefusedError, WorkError
from jobs.finding import Finding, failed, failures, passed, warned
from jobs.layout import Layout


@dataclass(frozen=True)
class Case:
    """What is to be checked: a recipe on an engine, the workers that it means there, if it can."""

    recipe: Recipe
    engine: Engine
    plan: Layout | None
    problems: tuple[Problem, ...] = ()

    @functools.cached_property
    def partitions(self) -> list[site.Partition]:
        """Slurm's partitions."""
        return site.all_partitions()

    @functools.cached_property
    def settings(self) -> dict[str, str]:
        """Slurm's configuration."""
        return site.all_settings()


@dataclass(frozen=True)
class Check:
    """One row of the table. `depends`: what does not answer if the check does not end."""

    name: str
    depends: str
    find: Callable[[Case], list[Finding]]
    at_launch: bool = False


SLURM = "Slurm's controller"
ANYWHERE = (
    Check("archive", "data.root", lambda case: inputs.check_archive(case.recipe.data), True),
    Check("classes", "data.root", lambda case: inputs.check_classes(case.recipe), True),
    Check("settings", "the recipe", lambda case: inputs.check_settings(case.recipe), True),
    Check("MD5", "data.root", lambda case: inputs.check_archive_content(case.recipe.data)),
    Check(
        "weights",
        "model.weights",
        lambda case: inputs.check_weights(case.recipe.model.weights),
        True,
    ),
    Check(
        "SHA-256",
        "model.weights",
        lambda case: inputs.check_weights_content(case.recipe.model.weights),
    ),
    Check(
        "run root", "run.root", lambda case: storage.check_root(Path(case.recipe.run.root)), True
    ),
    Check("writing", "run.root", lambda case: storage.check_writing(case.recipe)),
    Check("space", "run.root", lambda case: storage.check_space(case.recipe), True),
    Check("home", "the home folder", lambda _: storage.check_home()),
    Check(
        "workers",
        "this machine",
        lambda case: check_workers(case.recipe, case.engine, case.plan, case.problems),
        True,
    ),
    Check(
        "torch",
        "the Python environment",
        lambda case: environment.check_torch(case.recipe, case.plan),
        True,
    ),
)
ON_SLURM = (
    Check(
        "storage",
        "some file system",
        lambda case: storage.check_shared(
            case.recipe,
            lambda: site.is_one_machine(case.recipe.cluster, case.partitions),
        ),
        True,
    ),
    Check(
        "partition",
        SLURM,
        lambda case: site.check_partition(case.recipe.cluster, case.partitions),
        True,
    ),
    Check("nodes", SLURM, lambda case: site.check_nodes(case.recipe.cluster, case.partitions)),
    Check("account", SLURM, lambda case: site.check_account(case.recipe.cluster, case.settings)),
    Check(
        "requeue",
        SLURM,
        lambda case: site.check_stopping(case.recipe.cluster, case.settings, case.partitions),
    ),
    Check(
        "sbatch",
        SLURM,
        lambda case: trial.check_script(case.recipe, case.plan, case.partitions),
        True,
    ),
)


def make_case(recipe: Recipe, engine: Engine) -> Case:
    """What a recipe comes to on an engine."""
    try:
        plan = (
            layout.on_slurm(recipe)
            if engine.name == "slurm"
            else layout.on_this_machine(recipe, layout.count_gpus())
        )
    except RefusedError as error:
        return Case(recipe, engine, None, error.problems)
    return Case(recipe, engine, plan)


def table(engine: Engine) -> tuple[Check, ...]:
    """The checks that make sense for an engine that can or cannot be asked now."""
    return (*ANYWHERE, *ON_SLURM) if engine.name == "slurm" and not engine.problem else ANYWHERE


def look(check: Check, case: Case) -> list[Finding]:
    """What a check finds; what keeps it from finding anything is a finding too."""
    try:
        return check.find(case)
    except (OSError, ValueError, LookupError, WorkError) as error:
        is_key = "." in check.depends
        if isinstance(error, PermissionError) and is_key:
            remedy = f"ask for the right to enter its folders (namei -l {error.filename})"
            text = f"you may not look at {error.filename}"
            return [failed(text, f"{remedy} or name another", check.depends)]
        text = f"could not be checked: {error}"
        return [warned(text, f"look whether {check.depends} is as it should be")]


def at_launch(case: Case, *, ask_slurm: bool) -> list[Finding]:
    """What is wrong, or may go wrong, as far as can be seen at once."""
    found = [
        finding
        for check in (table(case.engine) if ask_slurm else ANYWHERE)
        if check.at_launch
        for finding in look(check, case)
        if finding.level != "pass"
    ]
    return without_repeats(found)


def without_repeats(findings: list[Finding]) -> list[Finding]:
    """Only the first failure of each key: two checks may meet the same fault."""
    keys = set()
    kept = []
    for finding in findings:
        if finding.level != "fail" or not finding.key or finding.key not in keys:
            kept.append(finding)
        if finding.level == "fail":
            keys.add(finding.key)
    return kept


def check_workers(
    recipe: Recipe, engine: Engine, plan: Layout | None, problems: tuple[Problem, ...]
) -> list[Finding]:
    """Whether the engine can have such workers, and whether they can share the batches."""
    if plan is None:
        return failures(problems)
    found = check_shares(recipe, plan)
    if engine.name == "slurm":
        from jobs import slurm

        found += slurm.check_options(recipe.cluster)
    if found:
        return failures(found)
    share = recipe.train.batch_size // plan.world_size
    text = f"{plan.describe()}, {share} images a step on each worker"
    is_chosen = engine.name == "local" and recipe.cluster.engine == "auto"
    if is_chosen and plan.gpus_per_node == 0 and is_for_gpus(recipe):
        remedy = "have Slurm's commands on PATH on a login node; for a trial, take quickstart.yaml"
        return [warned(f"{text}, for this machine shows no GPU", remedy)]
    return [passed(text)]


def is_for_gpus(recipe: Recipe) -> bool:
    """Whether a recipe counts on GPUs, and does not only take those that are there."""
    return recipe.cluster.gpus_per_node not in (0, "all") and recipe.train.device != "cpu"


def check_shares(recipe: Recipe, layout: Layout) -> list[Problem]:
    """Problems with dividing a batch among the workers, with the nearest sizes that divide."""
    batch, workers = recipe.train.batch_size, layout.world_size
    if batch % workers:
        sizes = _nearest(batch, batch + workers, lambda size: size % workers == 0)
        message = f"{batch} images cannot be shared evenly by {workers} workers"
        return [Problem("train.batch_size", message, sizes)]
    share, micro = batch // workers, recipe.train.micro_batch_size
    if micro and share % micro:
        sizes = _nearest(micro, share, lambda size: share % size == 0)
        message = f"{micro} does not divide a worker's share of {share} images a step"
        return [Problem("train.micro_batch_size", message, sizes)]
    if min(share, micro or share) < 2:
        key = "train.micro_batch_size" if micro == 1 else "train.batch_size"
        message = "batch normalisation needs two images at a time or more on each worker"
        return [Problem(key, message, "take more")]
    return []


def _nearest(size: int, largest: int, fits: Callable[[int], bool]) -> str:
    below = next((n for n in range(size - 1, 0, -1) if fits(n)), None)
    above = next((n for n in range(size + 1, largest + 1) if fits(n)), None)
    return "the nearest that can: " + " and ".join(str(n) for n in (below, above) if n)
