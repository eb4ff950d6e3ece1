"""What stands before a command's name is that command's or refused, and never lost in silence."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from jobs.cli import main


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """As they were: `main` has a process of its own otherwise."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            "--config scratch.yaml stage --to bundle --python 2",
            "stage starts nothing, and its options stand",
        ),
        (
            "--set run.seed=1 stage --to bundle --python 2",
            "stage starts nothing, and its options stand",
        ),
        ("--set run.seed=1 stage --to bundle --python 2 --set data.md5=none", "after its name"),
        ("--name mine stage --verify bundle", "see stage --help"),
        ("--set run.seed=1 doctor --config finetune.yaml", "doctor takes --config, --set and"),
        ("--config scratch.yaml doctor --config finetune.yaml", "--on-node, after its name"),
        ("--config scratch.yaml status", "status is about runs that exist; it takes no recipe"),
        ("--set run.seed=1 resume --set run.seed=2", "resume is about runs that exist"),
    ],
)
def test_options_before_another_command_s_name_are_refused(
    arguments: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())

    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_a_launch_without_a_recipe_is_told_what_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])

    assert caught.value.code == 2
    assert "say what to run: --config finetune.yaml" in capsys.readouterr().err


def test_a_recipe_without_its_option_is_told_how_to_say_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["mine/finetune.yaml", "--set", "run.seed=1"])

    assert caught.value.code == 2
    assert "a recipe follows its option: --config mine/finetune.yaml" in capsys.readouterr().err
