"""The batch scripts in slurm/ for people who want neither launch.py nor submitit.

    make templates

What they ask of Slurm and of srun comes out of the renderer of job.sbatch (jobs/slurm.py). The rest
of that script serves a run directory and its tasks, which these do without: they start the workers
themselves, in a shell that a person can read and adapt.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from configs.cluster import Cluster
from configs.schema import Recipe, Run
from jobs import layout, slurm
from jobs.repository import PROJECT
from jobs.rundir import RunDirectory

Style = Literal["finetune", "torchrun"]
STYLES: tuple[Style, ...] = ("finetune", "torchrun")

# What a reader sees first and edits; the partition and the account are examples, commented out.
CLUSTER = Cluster(nodes=2, gpus_per_node=4, cpus_per_gpu=4, partition="gpu", account="me")
EXAMPLES = ("partition", "account")
REMARKS = {
    "finetune": {
        "job-name": "",
        "nodes": "",
        "gpus-per-node": "",
        "ntasks-per-node": "as many as GPUs on a node",
        "cpus-per-task": "for each GPU",
        "time": "minutes, or hours:minutes:seconds",
        "signal": "this many seconds before the limit the workers save and leave",
        "output": "",
    },
    "torchrun": {
        "job-name": "",
        "nodes": "",
        "gpus-per-node": "",
        "cpus-per-task": "of a node: four or more for each GPU",
        "time": "minutes, or hours:minutes:seconds",
        "signal": "this many seconds before the limit the workers save and leave",
        "output": "",
    },
}

INTRO = {
    "finetune": """\
#!/bin/bash
# One srun task a GPU, without launch.py or submitit. From the project folder:
#
#     sbatch slurm/finetune.sbatch
#
# Edit the lines down to "end of settings" and nothing else.
""",
    "torchrun": """\
#!/bin/bash
# One torchrun a node, which starts one worker a GPU, without launch.py or submitit. From the
# project folder:
#
#     sbatch slurm/torchrun.sbatch
#
# Edit the lines down to "end of settings" and nothing else.
""",
}

SETTINGS = """\
RECIPE=finetune.yaml
OVERRIDES=()                    # such as (optimizer.lr=0.01 schedule.epochs=5)
RUN=logs/finetune/job-$SLURM_JOB_ID
PYTHON=.venv/bin/python

# ---- end of settings ----
"""

PREPARE = r"""set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
if [ ! -f launch.py ]; then
    echo "error: submit this from the project folder, not from $SLURM_SUBMIT_DIR" >&2
    exit 2
fi

# A requeued job finds its configuration and goes on from its newest checkpoint.
(umask 027 && mkdir -p "$RUN")  # others are neither to read it nor to write in it
umask g-w,o-w
if [ ! -e "$RUN/config.yaml" ]; then
    arguments=()
    for override in "${OVERRIDES[@]}"; do arguments+=(--set "$override"); done
    "$PYTHON" -m configs "$RECIPE" "${arguments[@]}" >"$RUN/.config.yaml"
    mv "$RUN/.config.yaml" "$RUN/config.yaml"
fi

# The first node by the address that Slurm itself uses: it works where node names do not resolve.
read -r first_node < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
MASTER_ADDR=$(scontrol --oneliner show node "$first_node" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
getent hosts "$MASTER_ADDR" >/dev/null || MASTER_ADDR=$first_node
# This shell runs on the first node, as rank 0 will; ports below 32768 are not taken at random.
MASTER_PORT=$("$PYTHON" - <<'PROBE'
import random, socket
while True:
    port = random.randint(10000, 32767)
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            continue
    print(port)
    break
PROBE
)
export MASTER_ADDR MASTER_PORT RUN PYTHON

# Submitted inside salloc, every task would be pinned to the cores of that shell."""

START = {
    "finetune": r"""
# exec, so that Slurm's signals reach the worker and not a shell in front of it.
# shellcheck disable=SC2016  # the variables are each task's own, not this shell's
task='export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_STEP_NUM_TASKS
export LOCAL_WORLD_SIZE=$((SLURM_STEP_NUM_TASKS / SLURM_STEP_NUM_NODES))
exec "$PYTHON" -u -m train --run "$RUN"'
status=0
@srun \
    bash -c "$task" || status=$?

# 75: stopped on request after saving. A job that was cancelled is not RUNNING any more.
if [ "$status" -eq 75 ] &&
    [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
""",
    "torchrun": r"""
# An older training session's variables would be taken for torchrun's own.
unset RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE

# The -- keeps Python 3.11 from taking --run for a short form of torchrun's own --run-path.
# shellcheck disable=SC2016  # the variables are each task's own, not this shell's
task='exec "$PYTHON" -u -m torch.distributed.run --nnodes="$SLURM_STEP_NUM_NODES" \
    --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" --node-rank="$SLURM_NODEID" \
    --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" -m -- train --run "$RUN"'

# torchrun does not hand on USR2 but does hand on TERM, so this shell takes the one (that is what
# the B: above is for) and gives the step the other. srun waits in the background for the trap.
stopping=
trap 'stopping=yes; scancel --signal=TERM "$SLURM_JOB_ID.0"' USR2
@srun \
    bash -c "$task" &
status=0
wait $! || status=$?
if [ -n "$stopping" ]; then
    wait $! || status=$?
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
""",
}


def render(style: Style) -> str:
    """The whole text of slurm/STYLE.sbatch."""
    remarks = REMARKS[style]
    asked = options(style)
    head = [_directive(name, asked[name], remark) for name, remark in remarks.items()]
    examples = [f"#{_directive(name, asked[name])}" for name in EXAMPLES]
    others = [_directive(name, asked[name]) for name in asked if name not in (*remarks, *EXAMPLES)]
    srun = ["srun", *slurm.srun_options('"$SLURM_CPUS_PER_TASK"'), "--label"]
    parts = [
        INTRO[style],
        # Slurm stops reading options at the first command, so all of them come first.
        *[*head, *examples, "# These stay as they are.", *others, ""],
        SETTINGS,
        PREPARE,
        *[slurm.UNPIN, *slurm.export_lines(slurm.VARIABLES)],
        START[style].replace("@srun", " ".join(srun)),
    ]
    return "\n".join(parts)


def options(style: Style) -> dict[str, str | None]:
    """What sbatch is asked for: what a run's job.sbatch asks, for a job without a run directory."""
    recipe = Recipe(run=Run(name="finetune"), cluster=CLUSTER)
    plan = layout.on_slurm(recipe)
    script = slurm.make_executor(recipe, plan, RunDirectory(Path("run"))).script()
    given = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, flags=re.MULTILINE)
    asked = {name: value or None for name, value in given}
    # It works in the folder that it is submitted from, and has one log.
    del asked["chdir"], asked["error"]
    asked["output"] = "logs/%x-%j.out"
    if style == "torchrun":
        asked["ntasks-per-node"] = "1"
        asked["cpus-per-task"] = str(CLUSTER.cpus_per_gpu * plan.workers_per_node)
        asked["signal"] = f"B:{asked['signal']}"
    return asked


def _directive(name: str, value: str | None, remark: str = "") -> str:
    line = f"#SBATCH --{name}" + (f"={value}" if value else "")
    return f"{line:<31} # {remark}" if remark else line


def main() -> None:
    """Write the templates."""
    for style in STYLES:
        path(style).write_text(render(style), encoding="utf-8")


def path(style: Style) -> Path:
    """Where a template lies."""
    return PROJECT / "slurm" / f"{style}.sbatch"


if __name__ == "__main__":
    main()
