"""Slurm's programs played by small scripts, and the start of a job that they know."""

from __future__ import annotations

from pathlib import Path

from jobs.place import Place

PLACE = Place(0, 0, 4, 2, "7", 0, "node1", ("node1", "node2"), "7.0")
ENVIRON = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NTASKS": "4"}


class Cluster:
    """Slurm's programs: what they answer, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.answer("squeue", "RUNNING 0")
        self.answer("scontrol", "")
        self.answer("sbatch", "8")

    def answer(
        self, program: str, words: str, code: int = 0, *, seconds: float = 0, to: int = 1
    ) -> None:
        """Let a program say `words`, on stdout or with `to` 2 on stderr, after some seconds."""
        script = self.folder / program
        script.write_text(
            f"#!/bin/sh\necho {program} $* >> {self.calls}\nsleep {seconds}\n"
            f"echo '{words}' >&{to}\nexit {code}\n"
        )
        script.chmod(0o755)

    def orders(self) -> list[str]:
        """What was asked for, without mere questions."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line for line in lines if not line.startswith("squeue")]
