"""Each refused value is told with its place and with what is expected there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

ProblemsOf = Callable[..., list[str]]

AT = "configs/recipe.yaml"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "optimizer.lr=fast",
            "expected a number above 0, got 'fast' (learning rate at its highest)",
        ),
        (
            "optimizer.lr=-1",
            "expected a number above 0, got -1 (learning rate at its highest)",
        ),
        (
            "optimizer.lr=.inf",
            "expected a number above 0, got Infinity (learning rate at its highest)",
        ),
        (
            "optimizer.lr=true",
            "expected a number above 0, got true (learning rate at its highest)",
        ),
        (
            "optimizer.lr=null",
            "expected a number above 0, got null (learning rate at its highest)",
        ),
        (
            "optimizer.lr={a: 1}",
            'expected a number above 0, got {"a": 1} (learning rate at its highest)',
        ),
        (
            "optimizer.nesterov=yes",
            "expected true/false, got 'yes' (Nesterov's momentum)",
        ),
        (
            "schedule.epochs=1.5",
            "expected a whole number of at least 1, got 1.5 (passes over the training images)",
        ),
        (
            "schedule.gamma=2",
            "expected a number above 0 and at most 1, got 2 (factor of each drop)",
        ),
        (
            "schedule.fixres_tail=1",
            "expected a number of at least 0 and below 1, got 1 (share of the run's steps, at its "
            "end, that train only the last layer and the batch norms, to fit them to "
            "data.resolution)",
        ),
        (
            "train.ema_half_life=0",
            "expected a number above 0 and at most 1 or null, got 0 (score and export a moving "
            "average of the weights, in which a step counts half after this share of the run's "
            "steps (exponential); null: the weights as they are trained)",
        ),
        (
            "data.crop_padding=33",
            "expected a whole number from 0 to 32, got 33 "
            "(zero pixels added on each side before a random 32 x 32 crop)",
        ),
        (
            "cluster.engine=Slrum",
            "expected 'auto', 'slurm' or 'local', got 'Slrum' (auto takes Slurm when its "
            "controller answers, else this machine); did you mean 'slurm'?",
        ),
        (
            "cluster.gpus_per_node=many",
            "expected a whole number of at least 0 or 'all', got 'many' (GPUs on each node, one "
            "worker each; 'all': what this machine has (local only))",
        ),
        (
            "cluster.gpus_per_node=-1",
            "expected a whole number of at least 0 or 'all', got -1 (GPUs on each node, one "
            "worker each; 'all': what this machine has (local only))",
        ),
        (
            "cluster.partition=",
            "expected text (not empty) or null, got '' (Slurm partition)",
        ),
        (
            "cluster.setup=[module load cuda, 3]",
            'expected a list of texts, got ["module load cuda", 3] '
            "(shell lines run on each job before the workers)",
        ),
        (
            "cluster.env=5",
            "expected a mapping of names to text, got 5 "
            "(environment variables set for the workers)",
        ),
        (
            "cluster.env.OMP_NUM_THREADS=4",
            "expected text, got 4 (environment variables set for the workers); "
            "put it in quotes to make it text, in a shell within others: '\"...\"'",
        ),
        (
            "cluster.sbatch.exclusive=null",
            "expected text, a whole number, a number or true/false, got null "
            "(further sbatch options by their long names, without the dashes)",
        ),
        (
            "data.mean=[1, 2]",
            "expected a list of 3 numbers, got [1, 2] "
            "(subtracted, per channel R G B, in grey levels)",
        ),
        (
            "data.std=[1, 0, 1]",
            "every channel's standard deviation must be from 0.001 to 10000 grey levels; "
            "got [1, 0, 1]",
        ),
        (
            "run.notes=2024",
            "expected text, got 2024 (free text that travels with the run into its report); "
            "put it in quotes to make it text, in a shell within others: '\"...\"'",
        ),
        (
            "run.notes=a: b",
            'expected text, got {"a": "b"} '
            "(free text that travels with the run into its report); "
            "put it in quotes to make it text, in a shell within others: '\"...\"'",
        ),
        (
            "run.notes=try #3",
            "'#' begins a comment: put the value in quotes, in a shell within others: '\"...\"'",
        ),
        (
            f"run.notes=[{'x' * 70}]",
            f'expected text, got ["{"x" * 58}... '
            "(free text that travels with the run into its report)",
        ),
        (
            "run.name=../elsewhere",
            "use letters, digits, '.', '_' and '-' only, a letter or digit first; "
            "got '../elsewhere'",
        ),
        (
            'run.name="newline\\n"',
            "use letters, digits, '.', '_' and '-' only, a letter or digit first; got 'newline\\n'",
        ),
        (
            "cluster.time_limit=4h",
            "write it as hours:minutes:seconds, like 04:00:00 or 2-12:00:00; got '4h'",
        ),
        (
            "cluster.time_limit=00:00:00",
            "write it as hours:minutes:seconds, like 04:00:00 or 2-12:00:00; got '00:00:00'",
        ),
        (
            "data.archive=../other.tar.gz",
            "give the name of a file in data.root, of letters, digits, '.', '_' and '-', that ends "
            "in .tar.gz; got '../other.tar.gz'",
        ),
        (
            "data.archive=own.tar.gz",
            "data.md5 is official, which only cifar-10-python.tar.gz and cifar-100-python.tar.gz "
            "are: set data.md5 to the MD5 of this file or to none; got 'own.tar.gz'",
        ),
        ("data.md5=c58f", "give 'official', 'none' or 32 lower-case hex digits; got 'c58f'"),
        (
            "schedule.milestones=[15, 10]",
            "epochs must be above 0 and in rising order; got [15, 10]",
        ),
        (
            "schedule.resolution=[[0.8, 128], [0.4, 160]]",
            "the shares must be in rising order: each counts from the start of the run; "
            "got [[0.8, 128], [0.4, 160]]",
        ),
        (
            "schedule.resolution=[0.4, 128]",
            "expected a list of [a number above 0 and below 1, a whole number from 8 to 1024], "
            "got [0.4, 128] (progressive resolution: up to each share of the run's steps the "
            "training images have that many pixels a side, afterwards data.resolution)",
        ),
        (
            "schedule.resolution=[[0.4, 128.5]]",
            "expected a list of [a number above 0 and below 1, a whole number from 8 to 1024], "
            "got [[0.4, 128.5]] (progressive resolution: up to each share of the run's steps the "
            "training images have that many pixels a side, afterwards data.resolution)",
        ),
        (
            "data.cutmix=1e-9",
            "an alpha below 0.001 mixes next to nothing: 0 switches it off; got 1e-09",
        ),
        (
            "train.micro_batch_size=5",
            "must divide train.batch_size, which is 32; got 5",
        ),
        (
            "logging.every_steps=4294967296",
            "whole numbers must be below 4,294,967,296; got 4294967296",
        ),
        (
            "schedule.milestones=[1, 99999999999]",
            "whole numbers must be below 4,294,967,296; got [1, 99999999999]",
        ),
        (
            "train.batch_size=100000",
            "expected a whole number from 1 to 65536, got 100000 "
            "(images per optimizer step, over all GPUs)",
        ),
        (
            "data.std=[1e-46, 1, 1]",
            "every channel's standard deviation must be from 0.001 to 10000 grey levels; "
            "got [1e-46, 1, 1]",
        ),
        (
            "data.mean=[1, 1, -1e+39]",
            "every channel's mean must be from -10000 to 10000 grey levels; got [1, 1, -1e+39]",
        ),
        ("optimizer.lr=5e-324", "a learning rate below 1e-12 changes no weight; got 5e-324"),
    ],
)
def test_a_refused_value_is_told_with_what_is_expected(
    problems_of: ProblemsOf, override: str, problem: str
) -> None:
    key = override.partition("=")[0]

    assert problems_of("{}", override) == [f"--set {key}: {problem}"]
