"""Every mistake in a recipe is told in words, with its place, all of them at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from configs import LoadedRecipe, explain
from configs.explain import Key

Write = Callable[[str, str], Path]
ProblemsOf = Callable[..., list[str]]
Load = Callable[..., LoadedRecipe]

AT = "configs/recipe.yaml"


def test_unknown_key_is_rejected_with_line_and_suggestion(
    problems_of: ProblemsOf,
) -> None:
    problems = problems_of("optimizer:\n  momentum: 0.5\n  learnig_rate: 1\n  nestrov: true\n")

    assert problems == [
        f"{AT}:3: optimizer.learnig_rate: unknown key; "
        "the keys of optimizer are lr, momentum, weight_decay, decay_norms_and_biases, nesterov",
        f"{AT}:4: optimizer.nestrov: unknown key; did you mean 'optimizer.nesterov'?",
    ]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("optimizer.batch_size", "train.batch_size"),
        ("optimizer.batch", "train.batch_size"),
        ("train.epoch", "schedule.epochs"),
        ("train.epochs", "schedule.epochs"),
        ("checkpoint.every_steps", "logging.every_steps"),
        ("checkpoint.every", "checkpoint.every_epochs"),
        ("cluster.mem", "cluster.mem_gb"),
        ("cluster.root", "run.root"),
        ("data.weights", "model.weights"),
    ],
)
def test_a_key_in_the_wrong_section_or_cut_short_is_found(
    problems_of: ProblemsOf, key: str, meant: str
) -> None:
    problems = problems_of("{}", f"{key}=1")

    assert problems == [f"--set {key}: unknown key; did you mean '{meant}'?"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("optimiser: {lr: 1}", "optimiser: unknown section; did you mean 'optimizer'?"),
        ("optimiser:", "optimiser: unknown section; did you mean 'optimizer'?"),
        ("lr: 1", "lr: unknown section; did you mean 'optimizer.lr'?"),
        ("optimizer.lr: 1", "optimizer.lr: unknown section; write 'lr:' below 'optimizer:'"),
        (
            "wandb: true",
            "wandb: unknown section; the sections are run, cluster, data, model, optimizer, "
            "schedule, train, evaluate, checkpoint, logging",
        ),
        (
            "schedule: 20",
            "schedule: is a section, its keys go below it: "
            "epochs, kind, milestones, gamma, warmup_steps, resolution, fixres_tail",
        ),
        (
            "logging: [1]",
            "logging: is a section, its keys go below it: every_steps, profile_steps",
        ),
    ],
)
def test_a_wrong_section_is_rejected(problems_of: ProblemsOf, text: str, problem: str) -> None:
    assert problems_of(text) == [f"{AT}:1: {problem}"]


def test_a_rule_between_two_keys_is_told_at_the_key_that_breaks_it(
    problems_of: ProblemsOf,
) -> None:
    """Also if the other key was set elsewhere."""
    text = "train:\n  micro_batch_size: 16\noptimizer:\n  nesterov: true\n"

    problems = problems_of(text, "train.batch_size=40", "optimizer.momentum=0")

    assert problems == [
        f"{AT}:2: train.micro_batch_size: must divide train.batch_size, which is 40; got 16",
        f"{AT}:4: optimizer.nesterov: needs optimizer.momentum above 0; got true",
    ]


def test_a_key_given_twice_is_rejected_with_both_lines(
    problems_of: ProblemsOf,
) -> None:
    problems = problems_of("run:\n  seed: 1\n\n  seed: 2\n", "cluster.env={A: x, A: y}")

    assert problems == [
        f"{AT}:4: run.seed: already given on line 2",
        "--set cluster.env.A: is given twice",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("optimizer.lr", "--set optimizer.lr: write it as section.key=value"),
        ("lr=1", "--set lr: unknown section; did you mean 'optimizer.lr'?"),
        (
            "optimizer=1",
            "--set optimizer: is a section, its keys go below it: "
            "lr, momentum, weight_decay, decay_norms_and_biases, nesterov",
        ),
        (
            "schedule.milestones=[1",
            "--set schedule.milestones: not valid YAML: while parsing a flow sequence from line 1, "
            "expected ',' or ']', but got '<stream end>'",
        ),
        (
            "schedule.epochs.x=1",
            '--set schedule.epochs: expected a whole number of at least 1, got {"x": 1} '
            "(passes over the training images)",
        ),
    ],
)
def test_a_malformed_override_is_rejected(
    problems_of: ProblemsOf, override: str, problem: str
) -> None:
    assert problems_of("{}", override) == [problem]


def test_all_problems_are_told_at_once_in_the_order_of_reading(
    problems_of: ProblemsOf, write: Write
) -> None:
    """The recipe's by line, then those of the file it includes, of the site, of the overrides."""
    write("base.yaml", "model:\n  stem: big\n")
    write("site.yaml", "cluster:\n  nodes: 0\n")
    text = "_base_: base.yaml\ntrain:\n  batch_size: 0\ndata:\n  flipp: 1\n  flip: 2\n"

    problems = problems_of(text, "train.device=gpu", "run.seed=x")

    assert [re.split(": expected|: unknown", problem)[0] for problem in problems] == [
        f"{AT}:3: train.batch_size",
        f"{AT}:5: data.flipp",
        f"{AT}:6: data.flip",
        "configs/base.yaml:2: model.stem",
        "configs/site.yaml:2: cluster.nodes",
        "--set train.device",
        "--set run.seed",
    ]


def test_a_tail_that_begins_before_the_last_resolution_is_refused(
    problems_of: ProblemsOf, load: Load
) -> None:
    text = "schedule:\n  fixres_tail: 0.3\n  resolution: [[0.8, 128]]\n"

    assert problems_of(text) == [
        f"{AT}:2: schedule.fixres_tail: the tail fits the network to data.resolution, and "
        "schedule.resolution has other sizes up to 0.8 of the run: give at most 0.2; got 0.3"
    ]
    assert load(text, "schedule.fixres_tail=0.2").recipe.schedule.fixres_tail == 0.2


@pytest.mark.parametrize("key", explain.KEYS, ids=".".join)
def test_every_key_has_words_for_what_it_takes_and_means(key: Key) -> None:
    assert explain.expected(key)
    assert explain.field(key).description
