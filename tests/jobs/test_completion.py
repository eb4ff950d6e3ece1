"""Tab completion in real shells, typed into a terminal, and what it is made of."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from configs import explain
from jobs import completion
from tests.debian import need_programs
from tests.jobs.workplace import Workplace

SHELLS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
KILL_LINE = "\x15"
TYPED = {
    "launch.py lo": "launch.py logs ",
    "launch.py --config finetune_": "launch.py --config finetune_fast.yaml ",
    "launch.py --config stub.yaml --na": "launch.py --config stub.yaml --name ",
    "launch.py --set schedule.ki": "launch.py --set schedule.kind=",
    "launch.py --set schedule.kind=co": "launch.py --set schedule.kind=cosine ",
    "launch.py --set optimizer.nesterov=t": "launch.py --set optimizer.nesterov=true ",
    "launch.py --sweep model.stem=cifar,i": "launch.py --sweep model.stem=cifar,imagenet ",
    "launch.py --engine=sl": "launch.py --engine=slurm ",
    "launch.py stage --torch cp": "launch.py stage --torch cpu ",
    "launch.py status fine": "launch.py status finetune",
    "launch.py status 20260102": "launch.py status 20260102-000000-bbbb ",
    "launch.py cancel finetune/20260102": "launch.py cancel finetune/20260102-000000-bbbb ",
    "launch.py logs scan/20260103-000000-cccc/1-": (
        "launch.py logs scan/20260103-000000-cccc/1-lr=0.2,seed=1 "
    ),
    "launch.py logs -f --ra": "launch.py logs -f --rank ",
    "launch.py logs -f sc": "launch.py logs -f scan",
    "launch.py cancel finetune --h": "launch.py cancel finetune --help ",
    "launch.py export finetune/20260102": "launch.py export finetune/20260102-000000-bbbb ",
    "launch.py export x --layout mm": "launch.py export x --layout mmcls ",
    "launch.py export x --layout mmcls con": "launch.py export x --layout mmcls configs/",
    "launch.py resume x --set data.root=con": "launch.py resume x --set data.root=configs/",
    "laun": "launch.py ",
    "./launch.py stat": "./launch.py status ",
}


class Terminal:
    """An interactive shell: what is typed into it and what it shows."""

    def __init__(self, shell: str, workplace: Workplace) -> None:
        tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**workplace.environment, "PS1": "> ", "TERM": "dumb", "PATH": tools}
        self.screen, own = pty.openpty()
        self.process = subprocess.Popen(
            SHELLS[shell],
            cwd=workplace.project,
            env=environment,
            stdin=own,
            stdout=own,
            stderr=own,
            start_new_session=True,
        )
        os.close(own)
        self.type(f'eval "$(python launch.py completion {shell})"; PS1=; echo rea""dy\n')
        self.await_text("ready\r\n")

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def await_text(self, text: str) -> str:
        """What was shown until `text` came, without the bell."""
        shown = ""
        deadline = time.monotonic() + 30
        while text not in shown:
            assert time.monotonic() < deadline, f"{text!r} is not in {shown!r}"
            if select.select([self.screen], [], [], 0.1)[0]:
                shown += os.read(self.screen, 4096).decode().replace("\a", "")
        return shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.screen)


@pytest.fixture
def runs(workplace: Workplace) -> Workplace:
    for name in (
        "finetune/20260101-000000-aaaa",
        "finetune/20260102-000000-bbbb",
        "scan/20260103-000000-cccc/0-lr=0.1,seed=1",
        "scan/20260103-000000-cccc/1-lr=0.2,seed=1",
    ):
        (workplace.logs / name).mkdir(parents=True)
    (workplace.logs / "scan" / "20260103-000000-cccc" / "sweep.json").write_text("{}")
    return workplace


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_commands_options_keys_values_recipes_and_runs(
    runs: Workplace, shell: str
) -> None:
    need_programs({shell: shell})
    terminal = Terminal(shell, runs)
    try:
        for typed, expected in TYPED.items():
            terminal.type(f"python {typed}\t")

            shown = terminal.await_text(f"python {expected}")

            assert "rror" not in shown
            terminal.type(f"{KILL_LINE}echo cle''ar\n")
            terminal.await_text("clear\r\n")
    finally:
        terminal.close()


def test_bash_asks_whoever_completed_pythons_arguments_before(runs: Workplace) -> None:
    done = subprocess.run(
        ["bash", "--norc", "-c", (
            "_theirs() { COMPREPLY=(theirs); }; complete -F _theirs python\n"
            f'lines="$({sys.executable} launch.py completion bash)"; eval "$lines"; eval "$lines"\n'
            "COMP_WORDS=(python script.py x) COMP_CWORD=2; _launch_py; echo ${COMPREPLY[@]}\n"
            "COMP_WORDS=(python elsewhere/launch.py x); _launch_py; echo ${COMPREPLY[@]}\n"
        )],
        cwd=runs.project, env=dict(runs.environment), capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert (done.stdout, done.stderr) == ("theirs\ntheirs\n", "")


@pytest.mark.parametrize("line", ["", "python", "python launch.py 'a", 'ls "', "launch.py --x=\\"])
def test_no_line_makes_an_error(runs: Workplace, line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.completion", "bash", line, " =:"],
        cwd=runs.project,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_the_keys_and_their_listed_values_are_the_schemas() -> None:
    listed = completion.read_schema()

    keys = [f"{section}.{key}" for section, key in explain.KEYS]
    assert [key.rstrip("=.") for key in listed] == keys
    for key in explain.KEYS:
        annotation = explain.field(key).annotation
        if annotation is bool:
            assert listed[f"{'.'.join(key)}="] == ["true", "false"]
        elif get_origin(annotation) is Literal:
            assert listed[f"{'.'.join(key)}="] == list(get_args(annotation))
    assert listed["cluster.gpus_per_node="] == ["all"]
    assert listed["cluster.partition="] == ["null"]
    assert "cluster.env." in listed


def test_an_answer_needs_none_of_the_packages() -> None:
    code = (
        "import sys; from jobs.completion import complete\n"
        "complete(['--set', 'sch']), complete(['--config', ''])\n"
        "print({'yaml', 'pydantic', 'submitit', 'rich', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_runs_are_looked_for_where_the_site_keeps_them(runs: Workplace, tmp_path: Path) -> None:
    (tmp_path / "scratch" / "moved" / "20260101-000000-aaaa").mkdir(parents=True)
    (runs.project / "configs" / "site.yaml").write_text("run: {root: $SCRATCH}\n")

    done = subprocess.run(
        [sys.executable, "-m", "jobs.completion", "zsh", "python launch.py status mo"],
        cwd=runs.project,
        env={**runs.environment, "SCRATCH": str(tmp_path / "scratch")},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "moved\nmoved/20260101-000000-aaaa\n"
