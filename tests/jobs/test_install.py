"""install.sh refuses what cannot work, each with a clear error, and never leaves half a project."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from jobs import manifest
from jobs.controller import clean_environment
from tests.conftest import PROJECT
from tests.jobs.wheels import make_wheel
from tests.offline import PYTHON

pytestmark = pytest.mark.skipif(
    not os.confstr("CS_GNU_LIBC_VERSION"), reason="the wheels of a bundle need glibc"
)

FACTS = {
    "python": PYTHON,
    "machine": platform.machine(),
    "glibc": "2.17",
    "torch": "cpu",
    "room": "1000",
}
ARGUMENTS = ("--config", "finetune.yaml", "--set", "run.notes=two  words = $HOME 'quoted' =")
LAUNCH = "import sys, one; print('doctor:', sys.argv[1:], one.HERE); sys.exit(len(sys.argv) - 6)\n"
WHEEL = "one-1.0-py3-none-any.whl"
REAL = str(Path(sys.executable).resolve())
# It copies the environment that it would make, which takes Python many seconds.
QUICK = """\
#!/bin/sh
[ "$*" = "-I -m venv -- $5" ] && exec cp -a -- '{made}' "$5"
exec '{real}' "$@"
"""
FILES = ("data/archive", "data/a ' \" b", "data/[*]?", ".hidden")


@pytest.fixture(scope="session")
def quick_python(shared_folder: Callable[[str], AbstractContextManager[Path]]) -> Path:
    """A Python that needs no time for a new environment."""
    with shared_folder("environment") as folder:
        made, program = folder / ".venv", folder / "python"
        if not program.exists():
            subprocess.run([REAL, "-I", "-m", "venv", "--", made], check=True)
            program.write_text(QUICK.format(made=made, real=REAL))
            program.chmod(0o755)
    return program


@pytest.fixture
def bundle(tmp_path: Path, quick_python: Path) -> Path:
    """A bundle of a project that is one line; `python` beside it is quick."""
    (tmp_path / "python").symlink_to(quick_python)
    bundle = tmp_path / "share of all" / "bundle"
    (bundle / "wheels").mkdir(parents=True)
    (bundle / "files" / "data").mkdir(parents=True)
    for name in FILES:
        (bundle / "files" / name).write_text(name)
    sha256 = make_wheel(bundle / "wheels", WHEEL, one__py="HERE = __file__\n")
    (bundle / "requirements.txt").write_text(f"one==1.0 --hash=sha256:{sha256}\n")
    (tmp_path / "launch.py").write_text(LAUNCH)
    with tarfile.open(bundle / "project.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "launch.py", "launch.py")
    shutil.copy(PROJECT / "slurm" / "install.sh", bundle)
    describe(bundle)
    return bundle


def describe(bundle: Path, **facts: str) -> None:
    """Write bundle.conf with some facts changed, and the lists anew."""
    lines = [f"{key}={value}\n" for key, value in {**FACTS, **facts}.items()]
    lines += [f"argument={each}\n" for each in ARGUMENTS]
    (bundle / "bundle.conf").write_text("".join(lines))
    names = manifest.names_in(bundle) - manifest.UNLISTED
    manifest.write(bundle, {name: manifest.measure(bundle / name) for name in names}, {})


def start(bundle: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(bundle / "install.sh"), *arguments],
        cwd=bundle.parents[1],
        env={**clean_environment(), "PYTHON": str(bundle.parents[1] / "python"), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def install(bundle: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    with start(bundle, *arguments, **variables) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture
def place(bundle: Path) -> Path:
    """The folder that is made where nobody says another."""
    return bundle.parents[1] / "slurm-finetune"


@pytest.fixture
def misleading(tmp_path: Path) -> dict[str, str]:
    """A person's settings of pip and Python that lead elsewhere."""
    home = tmp_path / "home"
    (home / ".config" / "pip").mkdir(parents=True)
    wrong = "[global]\nindex-url = http://127.0.0.1:9/\nuser = true\ntarget = /nowhere\n"
    (home / ".config" / "pip" / "pip.conf").write_text(wrong)
    (tmp_path / "venv.py").write_text("raise ImportError")
    return {
        "HOME": str(home),
        "PIP_CONFIG_FILE": str(home / ".config" / "pip" / "pip.conf"),
        "PIP_NO_DEPS": "1",
        "PIP_TARGET": "/nowhere",
        "PYTHONPATH": str(tmp_path),
    }


def test_a_bundle_becomes_a_project_with_its_environment_whatever_a_person_has_set(
    bundle: Path, place: Path, misleading: dict[str, str]
) -> None:
    code, out, err = install(bundle, PYTHON=REAL, **misleading)

    assert (code, err.count("error")) == (0, 0), err
    packages = place / ".venv" / "lib" / f"python{PYTHON}" / "site-packages"
    assert out == f"doctor: {['doctor', *ARGUMENTS]} {packages / 'one.py'}\n"
    assert all((place / name).read_text() == name for name in FILES)
    assert (place / ".venv" / "installed").exists()
    assert not (place / ".installing").exists()
    assert f"cd {place} && . .venv/bin/activate" in err

    again = install(bundle)
    assert again[0] == 2
    assert f"error: {place} is there already; name another folder by --to" in again[2]


def test_doctor_s_verdict_is_the_exit_code_and_the_project_stays(bundle: Path, place: Path) -> None:
    with (bundle / "bundle.conf").open("a") as facts:
        facts.write("argument=one more\n")
    names = manifest.names_in(bundle) - manifest.UNLISTED
    manifest.write(bundle, {name: manifest.measure(bundle / name) for name in names}, {})

    code, out, _ = install(bundle)

    assert code == 1
    assert "'one more'" in out
    assert not (place / ".installing").exists()


@pytest.mark.parametrize(
    ("moment", "number"), [("unpacking", signal.SIGKILL), ("making", signal.SIGINT)]
)
def test_what_was_interrupted_is_finished_by_the_same_command(
    bundle: Path, place: Path, moment: str, number: signal.Signals
) -> None:
    with start(bundle, PYTHON=REAL) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith(moment):
                break
        time.sleep(0.3)
        os.killpg(process.pid, number)
        rest = process.stderr.read()
    assert process.returncode in (130, -number)
    assert (place / ".installing").exists()
    assert number == signal.SIGKILL or f"{place} is not complete; the same command" in rest

    code, out, err = install(bundle)

    assert code == 0, err
    assert f"going on with {place}" in err
    assert out.startswith("doctor:")


def test_a_damaged_bundle_makes_nothing_and_names_the_file(bundle: Path, place: Path) -> None:
    (bundle / "wheels" / WHEEL).write_bytes(b"half")
    (bundle / "requirements.txt").unlink()

    code, _, err = install(bundle)

    assert code == 1
    assert f"wheels/{WHEEL}: FAILED" in err
    assert "requirements.txt: FAILED open or read" in err
    assert err.endswith("error: the bundle is damaged: carry the files named above again\n")
    assert not place.exists()


@pytest.mark.parametrize("lines", [0, 3])
def test_a_list_that_was_cut_short_is_told(bundle: Path, lines: int) -> None:
    sums = bundle / "SHA256SUMS"
    sums.write_text("".join(sums.read_text().splitlines(keepends=True)[:lines]))

    code, _, err = install(bundle)

    assert (code, err) == (1, f"error: {sums} is cut short; carry it again\n")


@pytest.mark.parametrize(
    ("facts", "part"),
    [
        ({"python": "3.99"}, f"is CPython {PYTHON}\nerror: this bundle needs CPython 3.99 on"),
        ({"machine": "riscv64"}, f"runs on {platform.machine()}, and the wheels are for riscv64\n"),
        ({"glibc": "2.99"}, "and the wheels need 2.99 or later\n"),
        ({"room": "9" * 18}, "MB, and 999999999999 MB are needed"),
    ],
)
def test_a_machine_that_it_is_not_for_is_told(
    bundle: Path, facts: dict[str, str], part: str
) -> None:
    describe(bundle, **facts)

    code, out, err = install(bundle)

    assert (code, out) == (1, "")
    assert part in err


def test_the_python_that_fits_is_found_and_a_file_system_without_locks_is_no_reason_to_stop(
    bundle: Path, tmp_path: Path
) -> None:
    """`python3` may be too old, where python3.11 has another name on PATH."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / f"python{PYTHON}").symlink_to(tmp_path / "python")
    for name, script in (
        ("python3", "echo too old >&2; exit 1"),
        ("flock", "echo 'flock: 9: No locks available' >&2; exit 71"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"

    code, _, err = install(bundle, PYTHON="", PATH=path)
    assert (code, "flock" in err) == (0, False), err

    (tools / f"python{PYTHON}").unlink()
    (tools / f"python{PYTHON}").write_text("#!/bin/sh\nexit 1\n")
    (tools / f"python{PYTHON}").chmod(0o755)
    code, _, err = install(bundle, "--to", "other", PYTHON="", PATH=path)
    assert code == 1
    assert "  python3 too old\n" in err


def test_nothing_of_a_person_is_written_over(bundle: Path, place: Path) -> None:
    place.mkdir()
    (place / "thesis").touch()

    code, _, err = install(bundle)
    assert (code, f"error: {place} is there already" in err) == (2, True)

    (place / ".installing").write_text("begun from another bundle\n")
    code, _, err = install(bundle)
    assert (code, f"error: {place} was begun from another bundle" in err) == (2, True)
    assert {path.name for path in place.iterdir()} == {"thesis", ".installing"}


def test_a_folder_that_cannot_be_made_is_told(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    code, _, err = install(bundle, "--to", str(tmp_path / "file" / "inside"))

    assert code == 1
    assert err.endswith(f"error: {tmp_path / 'file' / 'inside'} cannot be made\n")


@pytest.fixture
def busy(bundle: Path) -> Iterator[subprocess.Popen[str]]:
    with start(bundle, PYTHON=REAL) as process:
        yield process
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.skipif(not shutil.which("flock"), reason="install.sh needs flock to see another")
def test_two_at_once_do_not_meet(bundle: Path, busy: subprocess.Popen[str]) -> None:
    assert busy.stderr
    while not busy.stderr.readline().startswith("making"):
        pass

    code, _, err = install(bundle)

    assert code == 2
    assert "error: another install.sh is at work on" in err


def test_wrong_arguments_are_told(bundle: Path) -> None:
    assert install(bundle, "--frobnicate")[0] == 2
    assert install(bundle, "--to")[0] == 2
    code, out, _ = install(bundle, "--help")
    assert code == 0
    assert out.startswith("Install the bundle that this script lies in")
