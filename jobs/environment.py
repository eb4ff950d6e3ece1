"""Checks of this Python environment, which the job starts its workers from; without torch."""

from __future__ import annotations

import functools
import importlib.util
import sys
from importlib import metadata
from pathlib import Path

from configs.schema import Recipe
from jobs.finding import Finding, failed, passed
from jobs.layout import Layout
from jobs.text import count

GPU_LIBRARIES = ("libtorch_cuda*", "libtorch_hip*")


def check_torch(recipe: Recipe, plan: Layout | None) -> list[Finding]:
    """Whether torch is there and can use the GPUs that are asked for."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        remedy = "install requirements.lock there, or start launch.py with the environment's python"
        return [failed(f"torch is not installed in {sys.prefix}", remedy)]
    version = _version("torch")
    if plan is None or plan.gpus_per_node == 0 or recipe.train.device == "cpu":
        return [passed(f"torch {version} in {sys.prefix}")]
    if _is_cpu_build(version, Path(spec.origin).parent):
        return [
            failed(
                f"torch {version} is a build for CPUs, but the run asks for "
                f"{count(plan.gpus_per_node, 'GPU')} on each node",
                "install a CUDA build of torch (requirements.lock names one), or set "
                "cluster.gpus_per_node to 0",
                "cluster.gpus_per_node",
            )
        ]
    return [passed(f"torch {version}, a build for GPUs, in {sys.prefix}")]


@functools.cache
def _is_cpu_build(version: str, package: Path) -> bool:
    """By the version where it says so, else by the library that every build for GPUs has.

    Wheels of some systems and conda's packages are CPU builds without a word in their version.
    """
    if "+" in version:
        return version.endswith("+cpu")
    folders = (package / "lib", Path(sys.prefix) / "lib")
    return not any(list(folder.glob(name)) for folder in folders for name in GPU_LIBRARIES)


@functools.cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"
