"""What `launch.py report` prints and writes, for people at terminals and for programs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs import report
from jobs.errors import RequestError
from tests.jobs.past_runs import attempt, write_run
from tests.jobs.workplace import Workplace


@pytest.fixture
def site(workplace: Workplace) -> Workplace:
    """Two finished runs of different seeds and one that failed, where the launcher finds them."""
    write_run(workplace.logs, "20260101-000000-aaaa", {"run.seed": 1})
    write_run(workplace.logs, "20260102-000000-bbbb", {"run.seed": 2}, scores=(80.0, 91.0))
    write_run(
        workplace.logs,
        "20260103-000000-cccc",
        {"optimizer.lr": 0.1},
        attempts=[attempt(reason="crash", gpu_seconds_lost=60.0)],
        is_finished=False,
    )
    return workplace


def test_the_table_is_plain_and_whole_where_nobody_looks(site: Workplace) -> None:
    done = site.launch("report")

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        "RUN", "STATE", "run.seed", "optimizer.lr", "GPUS", "TOP-1", "BEST-1", "TOP-5", "BEST-5",
        "IMAGES/S", "WALL", "QUEUE", "GPU", "TIME", "LOST", "ATTEMPTS", "COMMIT",
    ]  # fmt: skip
    assert lines[1].startswith("20260101-000000-aaaa  finished")
    assert lines[3].startswith("20260103-000000-cccc  failed")
    assert "90.50 ± 0.71" in lines[6]
    assert "\x1b" not in done.stdout


def at_terminal(site: Workplace, columns: int, *arguments: str, **variables: str) -> str:
    """What a terminal of so many columns is sent."""
    reading, writing = pty.openpty()
    environment = {**site.environment, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    subprocess.run(
        [sys.executable, "launch.py", "report", *arguments],
        cwd=site.project,
        env=environment | variables,
        stdin=subprocess.DEVNULL,
        stdout=writing,
        check=True,
        timeout=60,
    )
    os.close(writing)
    shown = b""
    # The other end is closed, which Linux tells by an error.
    while True:
        try:
            part = os.read(reading, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(reading)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal(site: Workplace, columns: int) -> None:
    shown = at_terminal(site, columns, NO_COLOR="1")

    assert max(map(len, shown.splitlines())) <= columns
    assert "\x1b" not in shown
    assert "COMMIT" in shown
    assert "\x1b[32m" in at_terminal(site, columns)


def test_one_run_is_told_from_top_to_bottom(site: Workplace) -> None:
    shown = site.launch("report", "cccc").stdout

    told = dict(line.split("  ", 1) for line in shown.splitlines())
    told = {key: value.strip() for key, value in told.items()}
    assert told["run"] == "finetune/20260103-000000-cccc"
    assert told["state"].startswith("failed")
    assert told["GPU time lost"] == "1 min 00 s"
    assert told["attempt 1"] == "crash after 1 h 00 min, on node1, node2"
    assert told["optimizer.lr"] == "0.1"


def test_the_format_follows_from_the_name_of_the_file(site: Workplace) -> None:
    for name, start in (("r.csv", "run,path"), ("r.json", "{"), ("r.html", "<!DOCTYPE html>")):
        done = site.launch("report", "--output", name)

        assert (done.returncode, done.stdout) == (0, "")
        assert (site.project / name).read_text().startswith(start)
    site.launch("report", "--format", "csv", "--output", "r.txt")
    assert (site.project / "r.txt").read_text() == (site.project / "r.csv").read_text()
    assert (site.project / "r.txt").read_text() == site.launch("report", "--format", "csv").stdout


def test_a_file_that_cannot_be_written_is_a_wrong_request(site: Workplace) -> None:
    done = site.launch("report", "--output", "nowhere/r.html")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --output nowhere/r.html: No such file or directory\n"


def test_a_file_behind_a_link_is_written_and_a_pipe_stays_one(
    site: Workplace, tmp_path: Path
) -> None:
    real, link, pipe = (tmp_path / name for name in ("real.csv", "link.csv", "pipe"))
    real.touch()
    link.symlink_to(real)
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_text)
        for output in (link, pipe):
            done = site.launch("report", "--format", "csv", "--output", str(output))
            assert done.returncode == 0, done.stderr

    assert link.is_symlink()
    assert pipe.is_fifo()
    assert real.read_text() == read.result()
    assert read.result().startswith("run,")


def test_a_page_is_not_poured_onto_a_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    with pytest.raises(RequestError, match="add --output"):
        report.show([], tmp_path, "html", None)


def test_what_people_wrote_draws_nothing_on_a_terminal(site: Workplace) -> None:
    notes = {"run.notes": "\x1b]0;title\x07\x1b[31mred", "run.seed": 7}
    run = write_run(site.logs, "20260104-000000-dddd", notes)

    done = site.launch("report", run.label)

    assert "0;titlered" in done.stdout
    assert not {"\x1b", "\x07"} & set(done.stdout)


def shell(site: Workplace, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command.replace("python", sys.executable)],
        cwd=site.project,
        env={**site.environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_reader_that_has_gone_is_no_error(site: Workplace) -> None:
    done = shell(site, "python launch.py report | true; exit ${PIPESTATUS[0]}")

    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_stdout_is_no_error(site: Workplace) -> None:
    done = shell(site, "python launch.py report --format csv >&-")

    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_terminal_has_no_letters_for_is_replaced(site: Workplace) -> None:
    done = shell(site, "python launch.py report", PYTHONIOENCODING="ascii")

    assert (done.returncode, done.stderr) == (0, "")
    assert "90.50 ? 0.71" in done.stdout


def test_what_a_redirected_stdout_had_before_stays(site: Workplace) -> None:
    command = (
        "echo before >all.csv; python launch.py report --format csv --output /dev/stdout >>all.csv"
    )

    done = shell(site, command)

    assert done.returncode == 0, done.stderr
    first, second, *_ = (site.project / "all.csv").read_text().splitlines()
    assert (first, second.partition(",")[0]) == ("before", "run")
