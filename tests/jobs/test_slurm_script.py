"""What is asked of Slurm: the parameters as a whole, and the options a recipe may add."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.cluster import Cluster
from configs.schema import Recipe, Run
from jobs import controller, deadline, layout, slurm, trial
from jobs.rundir import RunDirectory

RUN = RunDirectory(Path("/shared/my runs/name/stamp"))


def script(**cluster: object) -> str:
    recipe = Recipe(run=Run(name="name"), cluster=Cluster(**cluster))
    return slurm.make_executor(recipe, layout.on_slurm(recipe), RUN).script()


def options(text: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if "#SBATCH" in line]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_the_options_are_exactly_what_the_recipe_says() -> None:
    text = script(
        nodes=2,
        gpus_per_node=4,
        cpus_per_gpu=6,
        time_limit="1-00:00:01",
        partition="gpu",
        account="me",
        qos="high",
        constraint="h100",
        mem_gb=64,
    )

    assert options(text) == {
        "account": "me",
        "chdir": "'/shared/my runs/name/stamp/code'",
        "constraint": "h100",
        "cpus-per-task": "6",
        "error": "'/shared/my runs/name/stamp/submitit/%j_0_log.err'",
        "gpus-per-node": "4",
        "job-name": "name",
        "mem": "64G",
        "nodes": "2",
        "ntasks-per-node": "4",
        "open-mode": "append",
        "output": "'/shared/my runs/name/stamp/submitit/%j_0_log.out'",
        "partition": "gpu",
        "qos": "high",
        "requeue": "",
        "signal": "USR2@120",
        "time": "1441",
    }
    [srun] = [line for line in text.splitlines() if line.startswith("srun ")]
    assert "--cpus-per-task=6 --kill-on-bad-exit=1 --wait=60 " in srun


def test_what_a_recipe_leaves_out_is_not_asked_for() -> None:
    asked = options(script(gpus_per_node=0, cpu_workers=3))

    absent = {"account", "constraint", "gpus-per-node", "mem", "partition", "qos", "wckey"}
    assert absent & asked.keys() == set()
    assert asked["ntasks-per-node"] == "3"


def test_further_options_are_passed_on_and_gres_replaces_the_gpu_option() -> None:
    extra = {"exclusive": True, "mail-type": "END", "hint": False, "gres": "gpu:a100:2"}
    asked = options(script(gpus_per_node=2, sbatch=extra))

    assert (asked["exclusive"], asked["mail-type"], asked["gres"]) == ("", "END", "gpu:a100:2")
    assert {"hint", "gpus-per-node"} & asked.keys() == set()


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ("array", "remove it"),
        ("open-mode", "remove it"),
        ("cpus_per_task", "set cluster.cpus_per_gpu instead"),
        ("time", "set cluster.time_limit instead"),
        ("--exclusive", "write exclusive"),
    ],
)
def test_options_that_the_launcher_sets_itself_or_that_are_no_names_are_refused(
    option: str, remedy: str
) -> None:
    [problem] = slurm.check_options(Cluster(sbatch={option: "x", "mail-type": "END"}))

    assert (problem.key, problem.remedy) == (f"cluster.sbatch.{option}", remedy)


def test_setup_lines_and_variables_come_before_srun_in_order() -> None:
    text = script(setup=["set -euo pipefail", "module load cuda"], env={"MY_NAME": "two words"})

    lines = text.splitlines()
    order = [
        "umask g-w,o-w",
        "export MY_NAME='two words'",
        "set -euo pipefail",
        "module load cuda",
        # A failing srun must not keep the last lines from being run.
        "set +eu +o pipefail",
        "export SUBMITIT_EXECUTOR=slurm",
    ]
    assert [line for line in lines if line in order] == order


@pytest.mark.parametrize(("limit", "lead"), [("00:01:00", 10), ("00:07:00", 60), ("04:00:00", 120)])
def test_the_stop_signal_comes_early_enough_and_not_too_early(limit: str, lead: int) -> None:
    assert deadline.stop_lead_seconds(Cluster(time_limit=limit)) == lead


def test_the_culprit_is_the_key_without_which_slurm_accepts() -> None:
    recipe = Recipe(cluster=Cluster(nodes=4, gpus_per_node=8, partition="gpu", sbatch={"x": 1}))

    def accepts(**limits: object) -> str | None:
        return trial.find_culprit(
            recipe,
            lambda tried: all(getattr(tried.cluster, key) == limits[key] for key in limits),
        )

    assert accepts(nodes=1) == "cluster.nodes"
    assert accepts(gpus_per_node=0) == "cluster.gpus_per_node"
    assert accepts(partition=None) == "cluster.partition"
    assert accepts(sbatch={}) == "cluster.sbatch.x"
    assert accepts(nodes=1, gpus_per_node=0) is None


def test_what_leaks_is_removed_and_what_finds_slurm_stays() -> None:
    shell = {"PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf", "HOME": "/root"}
    leaks = (
        "SLURM_JOB_ID SLURM_CPU_BIND SBATCH_PARTITION SRUN_DEBUG RANK MASTER_PORT PMIX_RANK "
        "OMPI_COMM_WORLD_RANK TORCHELASTIC_RUN_ID CUDA_VISIBLE_DEVICES SUBMITIT_EXECUTOR "
        "SQUEUE_PARTITION SACCT_FEDERATION SINFO_PARTITION SCANCEL_INTERACTIVE"
    )

    cleaned = controller.clean_environment(shell | dict.fromkeys(leaks.split(), "leak"))

    assert cleaned == shell


@pytest.mark.parametrize(
    ("answer", "job"), [("123\n", "123"), ("123;cluster\n", "123"), ("job 5 quota ok\n77\n", "77")]
)
def test_the_job_id_is_found_behind_a_sites_banner(answer: str, job: str) -> None:
    assert slurm.RunExecutor._get_job_id_from_submission_command(answer) == job
