"""`doctor` on a real cluster of its own: it finds every planted fault and is silent without any."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.jobs.workplace import Workplace, eventually, make_workplace
from tests.slurm.conftest import running_cluster

pytestmark = pytest.mark.slurm

STATE = Path("/var/lib/slurm-devcluster-faults")
CONF = STATE / "etc" / "slurm.conf"
HEALTHY = """\
_base_: stub.yaml
cluster: {engine: slurm, nodes: 2, gpus_per_node: 2, time_limit: "00:30:00"}
model: {weights: weights/WEIGHTS}
"""
WEIGHTS = b"a checkpoint"
LINE = re.compile(r"(pass|warn|fail)  (\S+(?: \S+)*) {2,}(.*)")


@dataclass(frozen=True)
class Site:
    """A healthy project on a healthy cluster, until something is planted."""

    workplace: Workplace

    @property
    def project(self) -> Path:
        return self.workplace.project

    @property
    def archive(self) -> Path:
        return self.project / "data" / "cifar-10-python.tar.gz"

    @property
    def weights(self) -> Path:
        [file] = (self.project / "weights").iterdir()
        return file

    def slurm(self, *command: str) -> None:
        subprocess.run(command, env=dict(self.workplace.environment), check=True)

    def run(
        self, *arguments: str, prefix: tuple[str, ...] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, sys.executable, "launch.py", *arguments],
            cwd=self.project,
            env={**self.workplace.environment, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
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


Plant = Callable[[Site], AbstractContextManager[dict[str, str] | None]]


@contextlib.contextmanager
def truncated_archive(site: Site) -> Iterator[None]:
    site.archive.write_bytes(site.archive.read_bytes()[:-4])
    yield


@contextlib.contextmanager
def unreadable_archive(site: Site) -> Iterator[None]:
    site.archive.chmod(0)
    yield


@contextlib.contextmanager
def unreadable_weights(site: Site) -> Iterator[None]:
    site.weights.chmod(0)
    yield


@contextlib.contextmanager
def no_weights(site: Site) -> Iterator[None]:
    site.weights.unlink()
    yield


@contextlib.contextmanager
def other_weights(site: Site) -> Iterator[None]:
    site.weights.write_bytes(b"another checkpoint")
    yield


def disk(folder: str, options: str) -> Plant:
    """A small file system in memory over a folder of the project."""

    @contextlib.contextmanager
    def plant(site: Site) -> Iterator[dict[str, str]]:
        where = site.project / folder
        where.mkdir(exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
        if subprocess.run(mount, check=False).returncode:
            pytest.skip("a small disk needs the right to mount")
        try:
            with contextlib.suppress(OSError):
                (where / "ballast").write_bytes(bytes(2**20))
            yield {"HOME": str(where)} if folder == "home" else {}
        finally:
            subprocess.run(["umount", str(where)], check=True)

    return plant


@contextlib.contextmanager
def nodes_elsewhere(site: Site) -> Iterator[None]:
    """The nodes of the partition are other machines, as far as Slurm knows."""
    site.slurm("scontrol", "update", "NodeName=node[1-3]", "NodeHostname=far[1-3]")
    try:
        yield
    finally:
        [host] = {os.uname().nodename.partition(".")[0]}
        for node in ("node1", "node2", "node3"):
            site.slurm("scontrol", "update", f"NodeName={node}", f"NodeHostname={host}")


def partition(name: str, planted: str, healthy: str) -> Plant:
    """A partition that is another while the fault is planted."""

    @contextlib.contextmanager
    def plant(site: Site) -> Iterator[None]:
        site.slurm("scontrol", "update", f"PartitionName={name}", planted)
        try:
            yield
        finally:
            site.slurm("scontrol", "update", f"PartitionName={name}", healthy)

    return plant


def configured(*lines: str) -> Plant:
    """A controller that has read other lines in slurm.conf."""

    @contextlib.contextmanager
    def plant(site: Site) -> Iterator[None]:
        before = CONF.read_text()
        names = [line.partition("=")[0] for line in lines]
        kept = [line for line in before.splitlines() if line.partition("=")[0] not in names]
        CONF.write_text("\n".join([*lines, *kept, ""]))
        try:
            site.slurm("scontrol", "reconfigure")
            yield
        finally:
            CONF.write_text(before)
            site.slurm("scontrol", "reconfigure")

    return plant


@contextlib.contextmanager
def short_qos(site: Site) -> Iterator[None]:
    site.slurm("sacctmgr", "--immediate", "--quiet", "add", "qos", "short", "MaxWall=00:10:00")
    try:
        yield
    finally:
        site.slurm("sacctmgr", "--immediate", "--quiet", "delete", "qos", "short")


@contextlib.contextmanager
def silent_controller(site: Site) -> Iterator[None]:
    pid = int((STATE / "run" / "slurmctld.id").read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def cpu_build(site: Site) -> Iterator[dict[str, str]]:
    folder = site.project / "packages"
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text("raise ImportError('nobody may import this')\n")
    (folder / "torch-2.9.0+cpu.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: torch\nVersion: 2.9.0+cpu\n"
    (folder / "torch-2.9.0+cpu.dist-info" / "METADATA").write_text(metadata)
    yield {"PYTHONPATH": str(folder)}


@contextlib.contextmanager
def nothing(_site: Site) -> Iterator[None]:
    yield


@dataclass(frozen=True)
class Fault:
    """What is wrong, as a setting or a change of the site, and what doctor is to say of it.

    `remedy`: what its remedy names.
    """

    level: str
    row: str
    text: str
    remedy: str
    settings: tuple[str, ...] = ()
    plant: Plant = nothing


FAULTS = {
    "archive missing": Fault(
        "fail", "archive", "is missing", "download https://", ("data.root=elsewhere",)
    ),
    "archive truncated": Fault(
        "fail", "MD5", "is truncated or damaged", "bring it again", plant=truncated_archive
    ),
    "archive of another size": Fault(
        "fail",
        "archive",
        "the official archive 170,498,071",
        "set data.md5",
        ("data.md5=official",),
    ),
    "archive with another sum": Fault(
        "fail", "MD5", "data.md5 asks for 0000", "bring it again", (f"data.md5='{'0' * 32}'",)
    ),
    "archive unreadable": Fault(
        "fail", "archive", "cannot be read (Permission denied)", "right", plant=unreadable_archive
    ),
    "weights missing": Fault("fail", "weights", "is missing", "name another", plant=no_weights),
    "weights unreadable": Fault(
        "fail", "weights", "cannot be read (Permission denied)", "right", plant=unreadable_weights
    ),
    "weights that belie their name": Fault(
        "fail", "SHA-256", "of its name", "rename it", plant=other_weights
    ),
    "run root full": Fault("fail", "space", "free", "run.root", plant=disk("logs", "size=8m")),
    "run root too small": Fault(
        "warn", "space", "the run keeps 0.8 GB", "run.root", plant=disk("logs", "size=400m")
    ),
    "run root without inodes": Fault(
        "fail", "space", "more files", "run.root", plant=disk("logs", "size=2g,nr_inodes=100")
    ),
    "run root read-only": Fault(
        "fail", "run root", "cannot be written", "name a folder", plant=disk("logs", "size=2g,ro")
    ),
    "run root below a file": Fault(
        "fail", "run root", "launch.py is not a folder", "name a folder", ("run.root=launch.py/x",)
    ),
    "home full": Fault("warn", "home", "it is full", "make room", plant=disk("home", "size=1m")),
    "all on a local disk": Fault(
        "warn",
        "storage",
        "run.root, data.root, model.weights, ",
        "cluster.shared",
        plant=nodes_elsewhere,
    ),
    "environment on a local disk": Fault(
        "warn",
        "storage",
        "the Python environment",
        "storage that every node mounts",
        ("cluster.shared=[PROJECT]",),
        nodes_elsewhere,
    ),
    "unknown partition": Fault(
        "fail", "sbatch", "cluster.partition", "gpu (default), low", ("cluster.partition=gpus",)
    ),
    "too many GPUs": Fault(
        "fail",
        "sbatch",
        "cluster.gpus_per_node: Slurm refuses 8",
        "3 nodes with gpu:4",
        ("cluster.gpus_per_node=8",),
    ),
    "too many nodes": Fault(
        "fail", "sbatch", "cluster.nodes: Slurm refuses 4", "has 3 nodes", ("cluster.nodes=4",)
    ),
    "time over the partition's limit": Fault(
        "fail",
        "partition",
        "cluster.time_limit: 00:30:00 is over the 00:10:00",
        "set it to 00:10:00 or less",
        ("cluster.partition=low",),
        partition("low", "MaxTime=00:10:00", "MaxTime=UNLIMITED"),
    ),
    "nodes over the partition's limit": Fault(
        "fail",
        "partition",
        "cluster.nodes: 2 are over the 1",
        "set it to 1",
        ("cluster.partition=low",),
        partition("low", "MaxNodes=1", "MaxNodes=UNLIMITED"),
    ),
    "partition down": Fault(
        "warn",
        "partition",
        "is DOWN",
        "gpu (default), low",
        ("cluster.partition=low",),
        partition("low", "State=DOWN", "State=UP"),
    ),
    "unknown account, not enforced": Fault(
        "warn", "account", "no account vision", "research", ("cluster.account=vision",)
    ),
    "unknown account, enforced": Fault(
        "fail",
        "account",
        "no account vision",
        "research",
        ("cluster.account=vision",),
        configured("AccountingStorageEnforce=associations"),
    ),
    "unknown QOS": Fault("warn", "account", "quality of service", "normal", ("cluster.qos=fast",)),
    "time over the QOS's limit": Fault(
        "fail", "account", "cluster.time_limit", "ask for less", ("cluster.qos=short",), short_qos
    ),
    "requeue disabled": Fault(
        "warn", "requeue", "JobRequeue is 0", "resume", plant=configured("JobRequeue=0")
    ),
    "KillWait too short": Fault(
        "warn", "requeue", "KillWait is 5 s", "KillWait=30", plant=configured("KillWait=5")
    ),
    "no job arrays": Fault(
        "warn", "requeue", "MaxArraySize is 1", "one by one", plant=configured("MaxArraySize=1")
    ),
    "preemption that cancels": Fault(
        "warn",
        "requeue",
        "PreemptMode of partition low is CANCEL",
        "take the partition gpu",
        ("cluster.partition=low",),
        partition("low", "PreemptMode=CANCEL", "PreemptMode=REQUEUE"),
    ),
    "CPU build of torch": Fault(
        "fail",
        "torch",
        "torch 2.9.0+cpu is a build for CPUs",
        "install a CUDA build",
        ("train.device=auto",),
        cpu_build,
    ),
    "batch that cannot be shared": Fault(
        "fail", "workers", "train.batch_size: 33 images", "32 and 36", ("train.batch_size=33",)
    ),
    "option that is the launcher's": Fault(
        "fail", "workers", "cluster.sbatch.output", "remove it", ("cluster.sbatch.output=x",)
    ),
    "silent controller": Fault(
        "fail", "engine", "did not answer", "administrators", plant=silent_controller
    ),
}
# Root reads everything unless it leaves that right behind.
AS_USERS_READ = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


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
    done = on_node(own_cluster, tmp_path, "--set", "cluster.nodes=2")

    assert done.returncode == 0, done.stderr
    table = done.stdout.partition("RANK  NODE")[2].splitlines()[1:5]
    assert [line.split()[0] for line in table] == ["0", "1", "2", "3"]
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
