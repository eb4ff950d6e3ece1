"""What README.md says is there, is there: paths, commands, targets, keys."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from configs import load_recipe
from configs.explain import KEYS
from jobs.options import make_parser
from tests.conftest import PROJECT
from train import predict

README = (PROJECT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
QUOTED = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
FOLDERS = tuple(f"{path.name}/" for path in PROJECT.iterdir() if path.is_dir())
# What a run makes, what the user brings, and what git ignores.
MADE = ("logs/finetune/", "logs/quickstart/", "data/", "weights/", "configs/site.yaml", ".venv/")


def test_readme_has_commands() -> None:
    assert len(COMMANDS) >= 15


@pytest.mark.parametrize("text", QUOTED)
def test_every_path_exists(text: str) -> None:
    """Whatever is written like a path of the project is one."""
    looks_like_a_path = text.startswith(FOLDERS) or re.fullmatch(
        r"[\w.-]+\.(py|md|toml|lock)", text
    )
    if looks_like_a_path and not text.startswith(MADE) and " " not in text:
        assert (PROJECT / text).exists()


@pytest.mark.parametrize("text", re.findall(r"\]\(([^)#]+)\)", README))
def test_every_link_leads_somewhere(text: str) -> None:
    assert text.startswith("https://") or (PROJECT / text).exists()


@pytest.mark.parametrize("text", QUOTED)
def test_every_key_is_in_the_schema(text: str) -> None:
    match = re.fullmatch(r"(\w+)\.(\w+)", text)
    if match and match[1] in {key[0] for key in KEYS}:
        assert (match[1], match[2]) in KEYS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str) -> None:
    """launch.py parses it, make has the target, a script has the file and the subcommand."""
    words = shlex.split(command)
    match words:
        case ["python", "launch.py", *arguments]:
            options = make_parser().parse_args(arguments)
            if recipe := options.config or getattr(options, "recipe", None):
                load_recipe(recipe, [*options.set, *getattr(options, "overrides", [])])
        case ["python", "-m", "train.weights", _]:
            assert (PROJECT / "train" / "weights.py").is_file()
        case ["python", "-m", "train.predict", *arguments]:
            predict.make_parser().parse_args(arguments)
        case ["make", *targets]:
            known = re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE)
            assert targets
            assert set(targets) <= set(known)
        case ["slurm/devcluster.sh", subcommand, *_]:
            script = PROJECT / "slurm" / "devcluster.sh"
            usage = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
            assert re.search(rf"^  {subcommand}\b", usage.stdout, flags=re.MULTILINE)
        case ["eval", inner]:
            assert inner == "$(slurm/devcluster.sh env)"
        case ["sbatch" | "cp" | ".", path, *_]:
            assert path.startswith(MADE) or (PROJECT / path).is_file()
        case ["squeue" | "sinfo" | "cd" | "git" | "mkdir", *_]:
            pass
        case _:
            pytest.fail(f"this test does not know the command: {command}")


def test_every_top_level_file_is_on_the_map() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    tops = {Path(name).parts[0] for name in listed.stdout.splitlines()}
    for top in tops - {".gitignore", "README.md"}:
        assert f"`{top}" in README, f"{top} is not on the map of the files"
