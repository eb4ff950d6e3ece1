"""`doctor` on a real cluster of its own: it finds every planted fault and is silent without any."""

from __future__ import annotations

import gzip
import hashlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.jobs.workplace import eventually, make_workplace
from tests.slurm.conftest import running_cluster
from tests.slurm.fault_table import FAULTS
from tests.slurm.faults import STATE, Site, nodes_elsewhere

pytestmark = pytest.mark.slurm

HEALTHY = """\
_base_: stub.yaml
cluster: {engine: slurm, nodes: 2, gpus_per_node: 2, time_limit: "00:30:00"}
model: {weights: weights/WEIGHTS}
"""
WEIGHTS = b"PK\x03\x04a checkpoint"
LINE = re.compile(r"(pass|warn|fail)  (\S+(?: \S+)*) {2,}(.*)")
# Root reads everything unless it leaves that right behind.
AS_USERS_READ = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


@pytest.fixture(scope="session")  # which lasts whatever the order of the tests
def own_cluster() -> Iterator[dict[str, str]]:
    with running_cluster(str(STATE)) as environment:
        yield environment


@pytest.fixture
def site(tmp_path: Path, own_cluster: dict[str, str]) -> Site:
    workplace = make_workplace(tmp_path / "project", own_cluster)
    name = f"resnet50-{hashlib.sha256(WEIGHTS).hexdigest()[:8]}.pth"
    (workplace.project / "weights").mkdir()
    (workplace.project / "weights" / name).write_bytes(WEIGHTS)
    (workplace.project / "configs" / "healthy.yaml").write_text(HEALTHY.replace("WEIGHTS", name))
    site = Site(workplace)
    site.archive.write_bytes(gzip.compress(b"an archive" * 1000))
    return site


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_the_only_thing_found_with_its_level_and_its_remedy(
    site: Site, name: str
) -> None:
    fault = FAULTS[name]
    settings = [
        word
        for each in fault.settings
        for word in ("--set", each.replace("PROJECT", str(site.project)))
    ]

    with fault.plant(site) as variables:
        done = site.run(
            "doctor", "--config", "healthy.yaml", *settings, prefix=AS_USERS_READ, **variables or {}
        )

    found = [(level, row) for level, row, _ in findings(done.stdout) if level != "pass"]
    assert found == [(fault.level, fault.row)], done.stdout + done.stderr
    [(_, _, told)] = [each for each in findings(done.stdout) if each[0] != "pass"]
    text, _, remedy = told.partition("\n                > ")
    assert fault.text in text
    assert fault.remedy in remedy
    assert done.returncode == (1 if fault.level == "fail" else 0)
    assert seconds_taken(done.stdout) < 10


def test_a_healthy_site_passes_every_check_in_silence(site: Site) -> None:
    done = site.run("doctor", "--config", "healthy.yaml")

    assert {level for level, _, _ in findings(done.stdout)} == {"pass"}, done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert site.workplace.runs == []

    launched = site.run("--config", "healthy.yaml", "--dry-run")

    assert launched.returncode == 0
    assert launched.stderr == "engine: slurm (cluster.engine is slurm)\n"


@pytest.mark.parametrize(
    "name", ["archive missing", "time over the partition's limit", "CPU build of torch"]
)
def test_a_launch_refuses_what_is_certain_to_fail_and_leaves_nothing(site: Site, name: str) -> None:
    fault = FAULTS[name]
    settings = [word for each in fault.settings for word in ("--set", each)]

    with fault.plant(site) as variables:
        done = site.run("--config", "healthy.yaml", *settings, **variables or {})

    assert (done.returncode, done.stdout) == (2, "")
    assert fault.text in done.stderr
    assert fault.remedy in done.stderr
    assert list(site.workplace.logs.iterdir()) == []


def test_a_launch_warns_in_one_line_of_what_may_go_wrong_and_goes_on(site: Site) -> None:
    with nodes_elsewhere(site):
        done = site.run("--config", "healthy.yaml", "--dry-run")

    assert done.returncode == 0
    [_, warning] = done.stderr.splitlines()
    assert warning.startswith("warning: run.root, data.root, ")
    assert warning.endswith("; more: launch.py doctor")


def test_the_nodes_are_tried_with_the_ranks_of_the_run_and_nothing_is_left(
    own_cluster: dict[str, str], tmp_path: Path
) -> None:
    settings = ("--set", "cluster.nodes=2", "--set", "cluster.gpus_per_node=1")

    done = on_node(own_cluster, tmp_path, *settings)

    assert done.returncode == 0, done.stderr
    table = done.stdout.partition("RANK  NODE")[2].splitlines()[1:3]
    assert [line.split()[0] for line in table] == ["0", "1"]
    assert all(re.search(r"CPU +\d+ GB +\d+ GB +[\d.]+ ms +[\d.]+ GB/s$", line) for line in table)
    assert "NCCL's algorithm bandwidth" in done.stdout
    assert re.search(r"job \d+: runs", done.stderr)
    assert list(tmp_path.iterdir()) == []
    assert queued(own_cluster) == []


def test_a_node_that_is_unfit_is_named(own_cluster: dict[str, str], tmp_path: Path) -> None:
    done = on_node(own_cluster, tmp_path, "--set", "train.device=cuda")

    assert done.returncode == 1
    faults = [line for line in done.stdout.splitlines() if line.startswith("fail  rank ")]
    assert len(faults) == 2
    assert "has no GPU that answers, but train.device is cuda" in faults[0]


def test_a_job_that_comes_to_nothing_tells_its_last_words(
    own_cluster: dict[str, str], tmp_path: Path
) -> None:
    broken = "cluster.setup=['echo the module is missing >&2', 'exit 3']"

    done = on_node(own_cluster, tmp_path, "--set", broken)

    assert done.returncode == 1
    assert re.search(r"error: job \d+ came to nothing", done.stderr)
    assert done.stderr.endswith("the module is missing\n")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_cancels_the_job_that_waits_and_leaves_nothing(
    own_cluster: dict[str, str], tmp_path: Path
) -> None:
    command = on_node_command(tmp_path, "--set", "cluster.sbatch.begin=now+1hour")
    with subprocess.Popen(
        command, cwd=PROJECT, env=own_cluster, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        eventually("the job waits", lambda: queued(own_cluster))
        assert [each.name[:8] for each in tmp_path.iterdir()] == [".doctor-"]
        assert process.stderr
        told = [process.stderr.readline().decode() for _ in range(2)]
        assert "held back until its start time" in told[1]

        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=30) == 130
    eventually("no job is left", lambda: not queued(own_cluster))
    assert list(tmp_path.iterdir()) == []


def findings(output: str) -> list[tuple[str, str, str]]:
    """Level, row and words, with the lines below them, of each finding."""
    found: list[tuple[str, str, str]] = []
    for line in output.splitlines():
        if match := LINE.fullmatch(line):
            found.append((match[1], match[2], match[3]))
        elif line.startswith(" "):
            found[-1] = (*found[-1][:2], f"{found[-1][2]}\n{line}")
    return found


def seconds_taken(output: str) -> float:
    match = re.search(r"^\d+ checks: .*, in ([\d.]+) s$", output, re.MULTILINE)
    assert match, output
    return float(match[1])


def on_node_command(root: Path, *arguments: str) -> list[str]:
    settings = ["cluster.engine=slurm", "cluster.gpus_per_node=2", f"run.root={root}"]
    words = [word for each in settings for word in ("--set", each)]
    command = ["doctor", "--config", "quickstart.yaml", "--on-node", *words, *arguments]
    return [sys.executable, "launch.py", *command]


def on_node(
    environment: dict[str, str], root: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        on_node_command(root, *arguments),
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def queued(environment: dict[str, str]) -> list[str]:
    command = ["squeue", "--noheader", "--format=%i"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return answer.stdout.split()
