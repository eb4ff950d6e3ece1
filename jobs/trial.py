"""The trial of the very script that would be submitted: would Slurm take it, and if not, why?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from configs.cluster import Cluster
from configs.schema import Recipe
from jobs import controller, layout, rundir, site
from jobs.errors import NEXT_LINE, WorkError
from jobs.finding import Finding, failed, passed
from jobs.layout import Layout
from jobs.site import Partition


def check_script(recipe: Recipe, plan: Layout | None, partitions: list[Partition]) -> list[Finding]:
    """What Slurm has against the very script that would be submitted."""
    from jobs import slurm

    if plan is None or slurm.check_options(recipe.cluster):
        return []
    run = rundir.reserve(Path(recipe.run.root), recipe.run.name)

    def answer(tried: Recipe, workers: Layout) -> tuple[bool, str]:
        return controller.try_script(slurm.make_executor(tried, workers, run).script())

    try:
        accepts, words = answer(recipe, plan)
        if accepts:
            return [passed(words.rpartition("sbatch: ")[2] or "Slurm takes the job")]
        culprit = find_culprit(recipe, lambda tried: answer(tried, layout.on_slurm(tried))[0])
    except WorkError as error:
        text = f"Slurm does not say whether it takes this job:{NEXT_LINE}{error}"
        return [failed(text, "try again when its controller answers", "cluster.engine")]
    if culprit is None:
        text = f"Slurm refuses this job, and no single key is the cause:{NEXT_LINE}{words}"
        return [failed(text, "look at configs/site.yaml, where this site's needs are", "cluster")]
    text = f"Slurm refuses {_value_of(recipe, culprit)}:{NEXT_LINE}{words}"
    return [failed(text, site.hint(culprit, recipe.cluster, partitions), culprit)]


def _value_of(recipe: Recipe, key: str) -> object:
    section, name, *option = key.split(".", 2)
    value = getattr(getattr(recipe, section), name)
    return value[option[0]] if option else value


def find_culprit(recipe: Recipe, accepts: Callable[[Recipe], bool]) -> str | None:
    """The key of a recipe that Slurm refuses without which Slurm would accept it.

    Slurm often says no more than "Requested node configuration is not available". So each key that
    asks for something is tried at its most modest value, the others as they are: the first that
    makes Slurm accept is the cause, whatever the words and the release. None: no single key is.
    """
    for key, cluster in _more_modest(recipe.cluster):
        if accepts(recipe.model_copy(update={"cluster": cluster})):
            return f"cluster.{key}"
    return None


def _more_modest(cluster: Cluster) -> Iterator[tuple[str, Cluster]]:
    # Fewer GPUs also mean fewer tasks, cores and memory, so the keys those follow from come first;
    # another partition may have anything, so it comes last.
    modest: dict[str, Any] = {
        "time_limit": "00:01:00",
        "mem_gb": None,
        "cpus_per_gpu": 1,
        "cpu_workers": 1,
        "gpus_per_node": 0,
        "nodes": 1,
        "constraint": None,
        "qos": None,
        "account": None,
        "partition": None,
    }
    for key, value in modest.items():
        if getattr(cluster, key) != value:
            yield key, cluster.model_copy(update={key: value})
    for option in cluster.sbatch:
        others = {name: value for name, value in cluster.sbatch.items() if name != option}
        yield f"sbatch.{option}", cluster.model_copy(update={"sbatch": others})
