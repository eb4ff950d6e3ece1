"""The batch scripts in slurm/: rendered as job.sbatch is, and nothing in them drifts from it."""

from __future__ import annotations

import re

import pytest

from configs.schema import Recipe, Run
from jobs import layout, rundir, slurm, templates
from jobs.templates import Style
from tests.conftest import PROJECT

# What a template must have of its own, for it has no run directory.
OWN: dict[Style, dict[str, str | None]] = {
    "finetune": {"output": "logs/%x-%j.out", "chdir": None, "error": None},
    "torchrun": {
        "output": "logs/%x-%j.out", "chdir": None, "error": None,
        # One task starts the workers of a node, and the shell takes the signal in its place.
        "ntasks-per-node": "1", "cpus-per-task": "16", "signal": "B:USR2@120",
    },
}  # fmt: skip


def directives(text: str) -> dict[str, str]:
    found = re.findall(r"^#{1,2}SBATCH --([\w-]+)=?(\S*|'.*')(?: +#.*)?$", text, flags=re.MULTILINE)
    return dict(found)


def srun_words(text: str) -> list[str]:
    [line] = re.findall(r"^srun (?:.*\\\n)*.*", text, flags=re.MULTILINE)
    return line.replace("\\\n", " ").split()


def job_script() -> str:
    recipe = Recipe(run=Run(name="finetune"), cluster=templates.CLUSTER)
    run = rundir.RunDirectory(PROJECT / "logs")
    return slurm.make_executor(recipe, layout.on_slurm(recipe), run).script()


@pytest.mark.parametrize("style", templates.STYLES)
def test_the_templates_are_what_the_renderer_writes(style: Style) -> None:
    path = PROJECT / "slurm" / f"{style}.sbatch"

    assert path.read_text() == templates.render(style), "make templates"


@pytest.mark.parametrize("style", templates.STYLES)
def test_a_template_asks_for_what_job_sbatch_asks_for(style: Style) -> None:
    asked = directives(templates.render(style))

    expected = directives(job_script()) | OWN[style]
    assert asked == {name: value for name, value in expected.items() if value is not None}


@pytest.mark.parametrize("style", templates.STYLES)
def test_a_templates_tasks_start_as_those_of_job_sbatch(style: Style) -> None:
    text = templates.render(style)

    expected = {word for word in srun_words(job_script()) if re.match("--(kill|wait|cpus)", word)}
    expected = {
        re.sub("cpus-per-task=4", 'cpus-per-task="$SLURM_CPUS_PER_TASK"', w) for w in expected
    }
    assert expected <= set(srun_words(text))
    assert len(expected) == 3
    shared = [slurm.UNPIN, *slurm.export_lines(slurm.VARIABLES)]
    for script in (job_script(), text):
        before_srun = script[: re.search("^srun ", script, flags=re.MULTILINE).start()].splitlines()
        assert [line for line in before_srun if line in shared] == shared


@pytest.mark.parametrize("style", templates.STYLES)
def test_every_option_comes_before_the_first_command_where_slurm_stops_reading(
    style: Style,
) -> None:
    lines = templates.render(style).splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))

    assert [line for line in lines[first_command:] if line.startswith("#SBATCH")] == []
