"""Each line of the table leaves out one technique whole, and nothing else."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.ablation import TECHNIQUES, lines, load, small, table_of
from configs import Recipe, load_recipe

PAIRS = [("finetune.yaml", "finetune_fast.yaml"), ("scratch.yaml", "scratch_fast.yaml")]
# What both recipes are made small by, and what no step depends on.
OF_BOTH = {"data.resolution", "schedule.epochs", "optimizer.lr", "train.batch_size"}
ASIDE = ("evaluate.", "checkpoint.", "logging.", "run.", "cluster.")


@pytest.fixture(params=PAIRS, ids=lambda pair: pair[1])
def sizes(request: pytest.FixtureRequest) -> Namespace:
    return Namespace(
        recipes=request.param, data_root="data", weights="w.pth", epochs=4, images=1600,
        test_images=2000, batch_size=32, resolution=64, lr_times=2.0, without=[],
    )  # fmt: skip


def values(recipe: Recipe) -> dict[str, Any]:
    sections = recipe.model_dump(mode="json").items()
    return {f"{name}.{key}": each for name, section in sections for key, each in section.items()}


def differing(one: Recipe, other: Recipe) -> set[str]:
    mine, theirs = values(one), values(other)
    return {key for key, each in mine.items() if theirs[key] != each}


def test_no_difference_of_the_recipes_is_left_out(sizes: Namespace) -> None:
    one, other = (load_recipe(config, []).recipe for config in sizes.recipes)

    found = {key for key in differing(one, other) if not key.startswith(ASIDE)}

    assert found <= OF_BOTH.union(*TECHNIQUES.values())


def test_each_line_differs_from_all_techniques_in_its_own_keys(sizes: Namespace) -> None:
    first, fast, *without = lines(sizes).items()
    whole = load(*fast[1])

    assert (first[0], fast[0]) == sizes.recipes
    assert len(without) >= 5
    for name, line in without:
        found = differing(load(*line), whole)
        assert found
        assert found <= set(TECHNIQUES[name.removeprefix("without ")])


def test_a_technique_left_out_of_every_line_has_a_line_of_its_own(sizes: Namespace) -> None:
    name = "averaged weights"
    before = lines(sizes)
    sizes.without = [name]
    after = lines(sizes)

    assert before.keys() - after.keys() == {f"without {name}"}
    assert after.keys() - before.keys() == {f"with {name}"}
    for line in after.keys() - {sizes.recipes[0], f"with {name}"}:
        assert differing(load(*after[line]), load(*before[line])) == {"train.ema_half_life"}
    assert load(*after[f"with {name}"]) == load(*before[sizes.recipes[1]])

    sizes.without = [next(name for name in TECHNIQUES if f"without {name}" not in before)]
    with pytest.raises(SystemExit, match=r"_fast\.yaml has it no more than"):
        lines(sizes)


def test_a_small_recipe_keeps_its_shares_of_the_run(sizes: Namespace) -> None:
    first, fast = (load(config, small(config, sizes)) for config in sizes.recipes)
    whole = load_recipe(sizes.recipes[1], []).recipe
    steps = whole.schedule.epochs * -(-50_000 // whole.train.batch_size)

    assert [epoch / 4 for epoch in first.schedule.milestones] in ([0.75], [0.5, 0.75])
    for config, small_one in zip(sizes.recipes, (first, fast), strict=True):
        own = load_recipe(config, []).recipe
        proportional = own.optimizer.lr * 32 / own.train.batch_size
        assert small_one.optimizer.lr == pytest.approx(2 * proportional)
    assert fast.schedule.warmup_steps == round(200 * whole.schedule.warmup_steps / steps)
    assert fast.schedule.resolution == [
        (share, round(64 * px / whole.data.resolution)) for share, px in whole.schedule.resolution
    ]


def test_a_line_is_compared_with_the_fast_recipes_seed_by_seed() -> None:
    """Of runs that came to their end."""

    def runs(*told: tuple[int, int, float]) -> dict[str, Any]:
        keys = ("seed", "exit_code", "accuracy_top-1")
        return {"runs": [dict(zip(keys, each, strict=True)) for each in told]}

    results = {
        "fast": runs((1, 0, 50.0), (2, 0, 60.0), (3, 0, 70.0)),
        "without": runs((1, 0, 49.0), (2, 1, 0.0), (3, 0, 68.0)),
        "broken": runs((1, 1, 0.0)),
    }

    names, scores, against = (list(each.cells) for each in table_of(results, "fast", "").columns)

    assert names == ["fast", "without", "broken"]
    assert scores == ["60.00 (50.00 to 70.00)", "58.50 (49.00 to 68.00)", "-"]
    assert against == ["+0.00", "-1.50", "-"]


def test_runs_of_chosen_lines_are_compared_seed_by_seed(measure: Callable[..., Any]) -> None:
    sizes = ["--epochs=1", "--images=16", "--test-images=8", "--batch-size=8", "--resolution=32"]

    printed, found = measure(
        "ablation",
        "--recipes",
        *PAIRS[0],
        *sizes,
        "--seeds=1",
        "--only",
        "without averaged weights",
    )

    fast, without = (found["results"][name] for name in (PAIRS[0][1], "without averaged weights"))
    assert [each["runs"][0]["steps"] for each in (fast, without)] == [2, 2]
    assert without["changed"]["train.ema_half_life"] is None
    lost = without["runs"][0]["accuracy_top-1"] - fast["runs"][0]["accuracy_top-1"]
    assert f"{lost:+.2f}" in printed
