"""Whole runs of the worker, started as a user would: real processes, real digits."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs import dump_recipe
from configs.schema import Model, Recipe
from tests.train.conftest import start_worker
from tests.train.runs import board, changed, events, results, rows
from train import checkpoint
from train.errors import RequestError
from train.journal import attempt_number
from train.model import build_model
from train.records import keep_rows_until
from train.state import weights_sha256
from train.worker import check_batch_size

Runner = Callable[..., list[tuple[int, str, str]]]


def test_metrics_tensorboard_results_and_checkpoint_agree(
    recipe: Recipe, make_run: Callable[..., Path], train: Runner
) -> None:
    run_dir = make_run(recipe)
    [(code, out, err)] = train(run_dir)

    assert (code, err) == (0, "")
    assert "rank 0 of 1" in out
    lines = rows(run_dir)
    order = [(row["mode"], row["epoch"], row["iter"], row["step"]) for row in lines]
    assert order == [
        ("train", 1, 2, 2),
        ("val", 1, 3, 3),
        ("train", 2, 1, 4),
        ("train", 2, 3, 6),
        ("val", 2, 3, 6),
    ]
    mmcls = {"mode", "epoch", "iter", "lr", "memory", "data_time", "loss", "time"}
    assert mmcls <= lines[0].keys()
    assert {"mode", "epoch", "iter", "lr", "accuracy_top-1", "accuracy_top-5"} <= lines[1].keys()

    shown = board(run_dir)
    tags = {
        "train": ("loss", "lr", "images_per_second"),
        "val": ("accuracy_top-1", "accuracy_top-5", "loss"),
    }
    for mode, keys in tags.items():
        for key in keys:
            written = [(row["step"], np.float32(row[key])) for row in lines if row["mode"] == mode]
            assert shown[f"{mode}/{key}"] == written
    reader = events(run_dir)
    assert set(reader.Tags()["images"]) == {"val/confusion_matrix", "val/mistakes"}
    assert "recipe/text_summary" in reader.Tags()["tensors"]

    end = results(run_dir)
    assert end["accuracy_top-1"] == lines[-1]["accuracy_top-1"]
    assert end["accuracy_top-5"] == lines[-1]["accuracy_top-5"]
    confusion = np.array(end["confusion_matrix"])
    assert confusion.sum() == 12
    assert end["accuracy_top-1"] == pytest.approx(100 * confusion.trace() / 12)
    best = max((row for row in lines if row["mode"] == "val"), key=lambda r: r["accuracy_top-1"])
    assert end["best"] == {key: best[key] for key in ("accuracy_top-1", "accuracy_top-5", "epoch")}
    assert (end["steps"], end["epochs"], end["world_size"], end["device"]) == (6, 2, 1, "cpu")

    folder = run_dir / "checkpoints"
    state = checkpoint.load(folder, checkpoint.manifests(folder)[-1], torch.device("cpu"))
    model = build_model(recipe.model, seed=0)
    model.load_state_dict(state["model"])
    assert weights_sha256(model) == end["weights_sha256"]


@pytest.mark.slow
def test_loss_curve_is_the_same_on_1_2_and_4_ranks(
    same_on_any_ranks: Recipe, whole_run: Callable[..., Path]
) -> None:
    curves = {}
    for world_size in (1, 2, 4):
        run_dir = whole_run(same_on_any_ranks, world_size)
        curves[world_size] = [row["loss"] for row in rows(run_dir) if row["mode"] == "train"]
        assert results(run_dir)["world_size"] == world_size

    assert len(curves[1]) == 4
    assert curves[2] == pytest.approx(curves[1], rel=1e-4)
    assert curves[4] == pytest.approx(curves[1], rel=1e-4)


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_worker_that_is_asked_to_stop_saves_and_leaves_with_75(
    recipe: Recipe, make_run: Callable[..., Path]
) -> None:
    """The real signal, to the real process."""
    run_dir = make_run(recipe)
    worker = start_worker(run_dir)
    wait_for(lambda: (run_dir / "metrics.jsonl").exists() and rows(run_dir))
    worker.send_signal(signal.SIGTERM)
    out, _ = worker.communicate(timeout=120)

    assert worker.returncode == 75
    [*_, saved] = checkpoint.manifests(run_dir / "checkpoints")
    assert f"stopped after step {saved.step}" in out
    assert not (run_dir / "results.json").exists()


def test_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    recipe: Recipe,
    make_run: Callable[..., Path],
    attempt: Callable[..., bool],
    train: Runner,
) -> None:
    run_dir = make_run(recipe)
    folder = run_dir / "checkpoints"
    assert not attempt(run_dir, looks=1)
    good = checkpoint.manifests(folder)[-1]
    state = checkpoint.load(folder, good, torch.device("cpu"))
    state["model"]["fc.weight"] *= 1e38  # still finite, but not what comes out of it
    checkpoint.write(folder, state, score=None, keep_last=2)
    outcomes = train(run_dir, world_size=2)

    assert [code for code, _, _ in outcomes] == [2, 2]
    for _, _, err in outcomes:
        message = err.strip().splitlines()[-1]
        assert message.startswith(f"error: the loss of step {good.step + 1} on rank 0 is not fin")
        assert message.endswith(f"The last good checkpoint is kept: step {good.step}")
    assert [m.step for m in checkpoint.manifests(folder)] == [good.step]


def test_weights_that_the_last_step_broke_are_neither_saved_nor_scored(
    recipe: Recipe, make_run: Callable[..., Path], train: Runner
) -> None:
    """The loss of that step is still finite: it was computed before the update."""
    recipe = changed(recipe, "optimizer", lr=1e38, weight_decay=10.0)
    run_dir = make_run(changed(recipe, "train", max_steps=1))
    [(code, _, err)] = train(run_dir)

    assert code == 2
    assert err.startswith("error: the weights after step 1 are not finite")
    assert checkpoint.manifests(run_dir / "checkpoints") == []
    assert rows(run_dir) == []


def test_another_recipe_cannot_go_on_with_a_checkpoint(
    recipe: Recipe, whole_run: Callable[..., Path], tmp_path: Path, train: Runner
) -> None:
    run_dir = shutil.copytree(whole_run(recipe), tmp_path / "run")
    (run_dir / "config.yaml").write_text(dump_recipe(changed(recipe, "optimizer", momentum=0.1)))
    [(code, _, err)] = train(run_dir)

    assert code == 2
    assert "optimizer.momentum was 0.9 and is 0.1" in err


def test_refused_archive_ends_all_ranks_with_one_clear_line(
    recipe: Recipe, make_run: Callable[..., Path], train: Runner
) -> None:
    run_dir = make_run(changed(recipe, "data", md5="official"))
    outcomes = train(run_dir, world_size=2)

    assert [code for code, _, _ in outcomes] == [2, 2]
    for _, _, err in outcomes:
        assert err.startswith("error: ")
        assert "but data.md5 asks for c58f30108f718f92721af3b95e74349a" in err
        assert err.count("\n") == 1
    assert not (run_dir / "metrics.jsonl").exists()


def test_missing_recipe_is_one_line_and_exit_code_2(tmp_path: Path, train: Runner) -> None:
    [(code, _, err)] = train(tmp_path)

    assert code == 2
    assert str(tmp_path / "config.yaml") in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("batch_size", "micro", "world_size", "reason"),
    [
        (32, None, 3, "cannot be shared evenly by 3 workers: the nearest that can are 30 and 33"),
        (32, 6, 2, "micro_batch_size 6 does not divide the 16 images of each worker"),
        (4, None, 4, "needs two images at a time"),
        (32, 1, 1, "needs two images at a time"),
    ],
)
def test_batches_that_ranks_cannot_share_are_refused(
    recipe: Recipe, batch_size: int, micro: int | None, world_size: int, reason: str
) -> None:
    recipe = changed(recipe, "train", batch_size=batch_size, micro_batch_size=micro)

    with pytest.raises(RequestError, match=reason):
        check_batch_size(recipe, world_size)


def test_wrong_number_of_classes_is_refused(
    recipe: Recipe, make_run: Callable[..., Path], train: Runner
) -> None:
    run_dir = make_run(recipe.model_copy(update={"model": Model(num_classes=7)}))
    [(code, _, err)] = train(run_dir)

    assert code == 2
    assert err == (
        f"error: model.num_classes is 7, but {recipe.data.archive} has 10 classes: "
        "set model.num_classes to 10, or data.archive to another archive\n"
    )


def test_lines_after_the_checkpoint_and_damaged_lines_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    row = '{"mode": "train", "step": %d}\n'
    path.write_bytes((row % 2 + "null\n5\n" + row % 3 + row % 4).encode() + b'\xff\x00\n{"st')
    keep_rows_until(path, 3, is_evaluated=False)

    assert path.read_text() == row % 2 + row % 3


@pytest.mark.parametrize("is_evaluated", [True, False])
def test_scores_of_the_step_gone_on_from_are_kept_only_if_it_has_them(
    tmp_path: Path, is_evaluated: bool
) -> None:
    """A run stopped in the middle of an evaluation makes it again."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"mode": "train", "step": 3}\n{"mode": "val", "step": 3}\n')
    kept = keep_rows_until(path, 3, is_evaluated=is_evaluated)

    assert [row["mode"] for row in kept] == (["train", "val"] if is_evaluated else ["train"])


def test_attempt_is_the_ledgers_last(tmp_path: Path) -> None:
    assert attempt_number(tmp_path) == 1
    (tmp_path / "attempts.jsonl").write_text('{"attempt": 1}\n{"attempt": 2}\n{"att')
    assert attempt_number(tmp_path) == 2
