"""`doctor` away from Slurm, and what it knows of storage, names and limits."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from configs.loader import LoadedRecipe
from configs.schema import Data, Model, Recipe, Run
from jobs import doctor, inputs, preflight, site, storage
from jobs.engine import Engine
from jobs.finding import passed
from jobs.preflight import Check
from tests.jobs.slurm_stand_in import Cluster
from tests.jobs.workplace import Workplace, as_another_user

# From a login node: home on NFS with a blank in its name, scratch on Lustre, a local disk on top.
MOUNTINFO = r"""21 1 259:2 / / rw,relatime shared:1 - xfs /dev/nvme0n1p2 rw
40 21 0:45 / /my\040home rw,relatime shared:20 - nfs4 nas:/home rw,vers=4.2
41 21 0:46 / /auto rw shared:21 - autofs systemd-1 rw
42 41 0:47 / /auto rw shared:22 - beegfs beegfs_nodev rw
50 21 0:50 / /scratch rw shared:23 - lustre 10.0.0.1@o2ib:/scratch rw
51 50 259:3 / /scratch/local rw shared:24 - ext4 /dev/nvme1n1 rw
"""


@pytest.mark.parametrize(
    ("cluster", "device", "level"),
    [
        ({"gpus_per_node": 2}, "auto", "warn"),
        ({"gpus_per_node": 2}, "cpu", "pass"),
        ({"gpus_per_node": 2, "engine": "local"}, "auto", "pass"),
        ({"gpus_per_node": "all"}, "auto", "pass"),
        ({"gpus_per_node": 0}, "auto", "pass"),
    ],
)
def test_gpus_that_are_counted_on_where_slurm_is_not_loaded_are_missed(
    monkeypatch: pytest.MonkeyPatch, cluster: dict[str, object], device: str, level: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    recipe = Recipe.model_validate({"cluster": cluster, "train": {"device": device}})
    case = preflight.make_case(recipe, Engine("local", "sbatch is not on PATH"))

    [finding] = preflight.check_workers(recipe, case.engine, case.plan, case.problems)

    assert finding.level == level
    assert ("for this machine shows no GPU" in finding.text) is (level == "warn")
    assert ("Slurm's commands on PATH" in finding.remedy) is (level == "warn")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/my home/me/logs", ("nfs4", "/my home")),
        ("/auto/x", ("beegfs", "/auto")),
        ("/scratch/run", ("lustre", "/scratch")),
        ("/scratch/local/run", ("ext4", "/scratch/local")),
        ("/scratchy", ("xfs", "/")),
    ],
)
def test_a_path_lies_on_what_is_mounted_last_and_nearest(
    tmp_path: Path, path: str, expected: tuple[str, str]
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTINFO)

    kind, mount = storage.file_system(Path(path), mounts)

    assert expected == (kind, str(mount))


def test_a_folder_counts_as_shared_by_its_type_or_by_the_sites_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def on_nfs_but_for_data(path: Path) -> tuple[str, Path]:
        return ("zfs", Path("/tank")) if "data" in path.parts else ("nfs4", Path("/"))

    monkeypatch.setattr(storage, "file_system", on_nfs_but_for_data)
    recipe = Recipe.model_validate({"run": {"root": "/runs"}, "data": {"root": "/tank/data"}})

    [alone] = storage.check_shared(recipe, lambda: False)
    told = recipe.cluster.model_copy(update={"shared": ["/tank"]})
    [with_word] = storage.check_shared(recipe.model_copy(update={"cluster": told}), lambda: False)
    [single] = storage.check_shared(recipe, lambda: True)

    assert (alone.level, alone.text[:35]) == ("warn", "data.root lies on zfs (mounted at /")
    assert (with_word.level, single.level) == ("pass", "pass")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50_8xb32_in1k_20210831-ea4938fc.pth", "fail"),
        ("resnet50-0676ba61.pth", "fail"),
        ("resnet50-20210831.pth", ""),
        ("resnet50.pth", ""),
        ("resnet50-abc.pth", ""),
    ],
)
def test_only_a_hash_in_a_name_promises_a_content(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04another content")

    findings = inputs.check_weights_content(str(tmp_path / name))

    assert [finding.level for finding in findings] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:10:00", 600),
        ("2-12:00:00", 216_000),
        ("05:30", 330),
        ("UNLIMITED", None),
        ("NONE", None),
        ("", None),
    ],
)
def test_limits_are_read_as_slurm_writes_them(text: str, seconds: int | None) -> None:
    assert seconds == site.seconds(text)


def test_a_check_that_never_ends_is_given_up_and_the_others_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for_ever = threading.Event()
    checks = (
        Check("dead", "the file system of data.root", lambda _: [passed(str(for_ever.wait()))]),
        Check("alive", "nothing", lambda _: [passed("is well")]),
    )
    monkeypatch.setattr(preflight, "table", lambda _: checks)
    monkeypatch.setattr(doctor, "SECONDS", 0.5)
    recipe = Recipe.model_validate({"cluster": {"engine": "local"}})

    code = doctor.examine(LoadedRecipe(recipe, tmp_path / "recipe.yaml", {}), on_node=False)

    for_ever.set()
    told = capsys.readouterr().out.splitlines()
    assert code == 1
    assert told[2].startswith("fail  dead        no answer within")
    assert told[3].endswith(
        "> look whether the file system of data.root answers; a launch would hang too"
    )
    assert told[4] == "pass  alive       is well"


@pytest.mark.parametrize("name", ["archive", "weights", "run root"])
def test_what_lies_behind_a_closed_folder_is_a_failure_of_its_key(
    tmp_path: Path, name: str
) -> None:
    closed = tmp_path / "place" / "closed"
    closed.mkdir(parents=True)
    for file in ("cifar-10-python.tar.gz", "w.pth"):
        (closed / file).touch()
    recipe = Recipe(
        data=Data(root="closed"), model=Model(weights="closed/w.pth"), run=Run(root="closed/logs")
    )
    [check] = [each for each in preflight.ANYWHERE if each.name == name]
    closed.chmod(0)

    with as_another_user(tmp_path / "place"):
        [found] = preflight.look(check, preflight.Case(recipe, Engine("local", ""), None))

    closed.chmod(0o700)
    assert (found.level, found.key) == ("fail", check.depends)
    assert found.text.startswith("you may not look at closed")


def test_slurm_that_is_installed_and_silent_is_a_warning_where_auto_takes_this_machine(
    workplace: Workplace, cluster: Cluster
) -> None:
    cluster.answer("srun", "")
    cluster.answer("scontrol", "Slurmctld(primary) at head is DOWN", code=1)
    arguments = ("doctor", "--config", "stub.yaml", "--set", "cluster.engine=auto")
    arguments += ("--set", "data.source=digits")

    done = workplace.launch(*arguments, PATH=os.environ["PATH"])

    assert done.returncode == 0
    [warning] = [line for line in done.stdout.splitlines() if line.startswith("warn")]
    assert "engine" in warning
    assert "at head is DOWN" in warning


def test_a_wrong_recipe_is_a_wrong_request(workplace: Workplace) -> None:
    done = workplace.launch("doctor", "--config", "stub.yaml", "--set", "train.batch_siz=8")

    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'train.batch_size'" in done.stderr


@pytest.mark.parametrize("arguments", ["doctor", "--dry-run doctor --config stub.yaml"])
def test_doctor_takes_a_recipe_and_no_options_of_a_launch(
    workplace: Workplace, arguments: str
) -> None:
    assert workplace.launch(*arguments.split()).returncode == 2
