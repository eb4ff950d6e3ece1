"""`launch.py export`: finds the run, hands on what the trainer's program says, stops with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.options import make_parser
from tests.conftest import PROJECT
from tests.jobs.past_runs import write_run
from tests.jobs.workplace import Workplace, eventually
from tests.train.made_runs import make_run
from train.export import LAYOUTS

# Says what it was asked for; with the layout mmcls it fails, with torchvision it goes on for long.
PROGRAM = """
import pathlib, signal, sys, time
layout = sys.argv[sys.argv.index("--layout") + 1]
print("asked for:", *sys.argv[1:], flush=True)
if layout == "torchvision":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    pathlib.Path("began").touch()
    time.sleep(60)
if layout == "mmcls":
    print("error: no checkpoint", file=sys.stderr)
    sys.exit(2)
"""


@pytest.fixture
def site(workplace: Workplace) -> Workplace:
    """Two runs, and a program in the place of the trainer's."""
    write_run(workplace.logs, "20260101-000000-aaaa")
    write_run(workplace.logs, "20260102-000000-bbbb")
    (workplace.project / "train" / "export.py").write_text(PROGRAM)
    return workplace


def test_a_name_means_the_newest_run_and_all_else_is_handed_on(site: Workplace) -> None:
    done = site.launch("export", "bbbb", "--best", "--layout", "safetensors", "o.safetensors")

    assert (done.returncode, done.stderr) == (0, "")
    run = site.logs / "finetune" / "20260102-000000-bbbb"
    assert done.stdout == (f"asked for: --run {run} --layout safetensors --best -- o.safetensors\n")


def test_the_file_is_named_from_the_users_folder_whatever_lies_there(
    site: Workplace, tmp_path: Path
) -> None:
    """Also a `train` of the user's own."""
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "export.py").write_text("print('another program')")
    done = subprocess.run(
        [sys.executable, site.project / "launch.py", "export", site.logs / "finetune" /
         "20260101-000000-aaaa", "--layout", "safetensors", "m.safetensors"],
        cwd=tmp_path, env=dict(site.environment), capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.endswith(" -- m.safetensors\n")


def test_a_refusal_keeps_its_words_and_its_exit_code(site: Workplace) -> None:
    done = site.launch("export", "aaaa", "--layout", "mmcls", "m.pth")

    assert (done.returncode, done.stderr) == (2, "error: no checkpoint\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["nothing", "--layout", "mmcls", "m.pth"],
            "is called 'nothing'; see: python launch.py status",
        ),
        (["2026", "--layout", "mmcls", "m.pth"], "is part of 2 runs"),
        (["aaaa", "m.pth"], "the following arguments are required: --layout"),
        (["aaaa", "--layout", "timm", "m.pth"], "invalid choice: 'timm'"),
        (["--layout", "mmcls", "m.pth"], "the following arguments are required: OUT"),
    ],
)
def test_a_wrong_request_is_refused_without_the_program(
    site: Workplace, arguments: list[str], words: str
) -> None:
    done = site.launch("export", *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_the_program_is_one_of_the_commands(layout: str) -> None:
    options = make_parser().parse_args(["export", "x", "--layout", layout, "m.pth"])

    assert options.layout == layout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_ends_the_program_too(site: Workplace, number: signal.Signals) -> None:
    launcher = site.start("export", "aaaa", "--layout", "torchvision", "m.pth")
    eventually("the program began", (site.project / "began").exists)
    launcher.send_signal(number)

    assert launcher.wait(timeout=30) == 130


def test_a_real_run_is_exported_by_the_trainers_program(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    out = tmp_path / "model.safetensors"
    command = [sys.executable, "launch.py", "export", run, "--layout", "safetensors", out]
    done = subprocess.run(
        command, cwd=PROJECT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    again = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"wrote {out} (")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith(f"error: {out} exists and is not overwritten")
