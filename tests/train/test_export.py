"""Exports: bit-identical when read back, in every layout, and nothing half made or overwritten."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import resource
import shlex
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torchvision.models import resnet50

from configs.schema import Recipe
from tests import warm
from tests.train.conftest import ONE_THREAD, become_nobody, in_processes
from tests.train.made_runs import (
    CLASSES,
    LAYOUTS,
    add_checkpoint,
    make_entries,
    make_recipe,
    make_run,
    write_export,
)
from tests.train.runs import results
from train import export, predict, writers
from train.errors import RequestError
from train.model import blank_model
from train.prediction import read_model
from train.state import weights_sha256
from train.weights import load_weights

STEMS = ("imagenet", "cifar")


@pytest.fixture(scope="session", params=STEMS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, of each stem."""
    return make_run(tmp_path_factory.mktemp("logs"), request.param)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("logs"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_320_entries_come_back_bit_for_bit(made: Path, layout: str, tmp_path: Path) -> None:
    out, _ = write_export(made, layout, tmp_path)
    stem = "cifar" if made.name.endswith("cifa") else "imagenet"
    recipe = make_recipe(stem)
    model = blank_model(recipe.model)
    account = load_weights(model, out)

    assert (len(account.loaded), account.reinitialised) == (320, {})
    written = make_entries(recipe, seed=30)
    read = model.state_dict()
    assert read.keys() == written.keys()
    for name, value in read.items():
        assert value.dtype == written[name].dtype
        assert value.numpy().tobytes() == written[name].contiguous().numpy().tobytes()
    assert weights_sha256(model) == results(made)["weights_sha256"]


def test_mmcls_file_has_the_names_and_meta_of_both_generations(run: Path, tmp_path: Path) -> None:
    out, _ = write_export(run, "mmcls", tmp_path)
    content = torch.load(out, weights_only=True)

    assert list(content) == ["meta", "state_dict"]
    assert {name.partition(".")[0] for name in content["state_dict"]} == {"backbone", "head"}
    assert "head.fc.weight" in content["state_dict"]
    meta = content["meta"]
    assert (meta["epoch"], meta["iter"]) == (3, 30)
    assert meta["CLASSES"] == meta["dataset_meta"]["classes"] == CLASSES
    config = {statement.targets[0].id: statement.value for statement in ast.parse(meta["cfg"]).body}
    assert {"model", "data_preprocessor", "test_pipeline", "test_dataloader"} == config.keys()
    assert "mean=[120.0, 110.5, 100.0]" in meta["cfg"]
    assert "type='ResNet'," in meta["cfg"]


def test_other_stem_is_mmpretrains_network_for_cifar() -> None:
    known = {"stem": "cifar", "mean": [1.0] * 3, "std": [2.0] * 3, "resolution": 32}

    assert "'ResNet_CIFAR'" in writers.mmpretrain_config(known, {"fc.bias": torch.zeros(3)})
    assert "topk=(1, 3)" in writers.mmpretrain_config(known, {"fc.bias": torch.zeros(3)})


def test_torchvision_loads_its_layout_by_itself(run: Path, tmp_path: Path) -> None:
    content = torch.load(write_export(run, "torchvision", tmp_path)[0], weights_only=True)

    assert type(content) is OrderedDict
    assert all(value.is_contiguous() for value in content.values())
    resnet50(weights=None, num_classes=10).load_state_dict(content, strict=True)


def test_safetensors_say_what_a_user_needs_and_where_they_come_from(
    run: Path, tmp_path: Path
) -> None:
    out, _ = write_export(run, "safetensors", tmp_path)
    with safe_open(out, framework="pt") as file:
        metadata = file.metadata()

    assert metadata == {
        "format": "pt",
        "classes": json.dumps(CLASSES),
        "resolution": "32",
        "mean": "[120.0, 110.5, 100.0]",
        "std": "[51.5865, 50.847, 51.255]",
        "stem": "imagenet",
        "step": "30",
        "epoch": "3",
        "accuracy_top-1": "97.23",
        "accuracy_top-5": "99.0",
        "weights_sha256": results(run)["weights_sha256"],
        "run": "finetune/20260101-000000-imag",
        "commit": "0123abcd",
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_printed_is_true_and_equal_models_give_equal_files(
    run: Path, layout: str, tmp_path: Path
) -> None:
    out, told = write_export(run, layout, tmp_path)
    content = out.read_bytes()
    out.unlink()
    write_export(run, layout, tmp_path)

    assert out.read_bytes() == content
    lines = told.splitlines()
    assert lines[0] == f"wrote {out} ({len(content):,} bytes, {layout} layout)"
    assert lines[1:3] == [
        "  run      finetune/20260101-000000-imag, step 30 (epoch 3): the final model",
        "  scores   top-1 97.23 %, top-5 99.00 %",
    ]
    assert lines[3] == f"  SHA-256  {hashlib.sha256(content).hexdigest()} of the file"
    assert lines[4].split()[0] == results(run)["weights_sha256"]
    bare = (
        " --classes='kind a,kind b,kind c,kind d,kind e,kind f,kind g,kind h,kind i,kind j'"
        " --resolution=32 --mean=120.0,110.5,100.0"
    )
    command = f"  python -m train.predict --checkpoint {out}"
    options = bare if layout == "torchvision" else ""
    assert lines[5:] == [f"{command}{options} IMAGES_OR_FOLDER"]


@pytest.mark.parametrize(
    "classes",
    [
        ["cat, domestic", "dog"],
        ['the "cat"', "d'og", "été"],
        ["-", "--mean"],
        [" a", "b "],
        ["a,b"],
    ],
)
def test_command_that_is_printed_gives_back_the_names_that_it_was_made_of(
    classes: list[str],
) -> None:
    known = {"classes": classes, "resolution": 32, "mean": [1.0, 2.5, 3.0], "std": [4.0] * 3}
    words = shlex.split(writers.options("torchvision", known))

    found = predict.make_parser().parse_args(["--checkpoint", "model.pth", *words, "photos"])
    assert {key: getattr(found, key) for key in known} == known


def test_name_that_promises_the_right_sha256_is_taken_and_another_refused(
    run: Path, tmp_path: Path
) -> None:
    out, _ = write_export(run, "mmcls", tmp_path)
    digits = hashlib.sha256(out.read_bytes()).hexdigest()[:8]
    good, bad = tmp_path / f"model-{digits}.pth", tmp_path / "model-0bad0bad.pth"

    with pytest.raises(RequestError, match="promises a SHA-256 that begins with 0bad0bad"):
        writers.export(run, "mmcls", bad, best=False)
    writers.export(run, "mmcls", good, best=False)

    assert sorted(tmp_path.iterdir()) == sorted([out, good])
    assert read_model(good, {}).usage.classes == CLASSES


def test_file_that_appears_while_an_export_is_at_work_stays_as_it_is(
    run: Path, tmp_path: Path
) -> None:
    """`export` itself is asked, behind the check of the name with which the command begins."""
    out = tmp_path / "model.pth"
    out.write_bytes(b"precious")

    with pytest.raises(RequestError, match=r"model\.pth has appeared meanwhile and is not overwri"):
        write_export(run, "mmcls", tmp_path)
    assert out.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [out]


def test_checkpoint_older_than_its_class_names_has_them_from_the_results(tmp_path: Path) -> None:
    run_dir = tmp_path / "old"
    path = add_checkpoint(run_dir, make_recipe(), 10, score=50.0, classes=None)
    (run_dir / "results.json").write_text(json.dumps({"classes": CLASSES, "steps": 10}))

    assert read_model(path, {}).usage.classes == CLASSES
    write_export(run_dir, "safetensors", tmp_path)
    assert read_model(tmp_path / "model.safetensors", {}).usage.classes == CLASSES
    (run_dir / "results.json").unlink()
    out = tmp_path / "unnamed.safetensors"
    told = writers.export(run_dir, "safetensors", out, best=False)
    assert "warning: the names of the classes are not known" in told
    assert "--classes=A,B,..." in told
    assert read_model(out, {"classes": CLASSES}).usage.classes == CLASSES


@pytest.mark.parametrize(
    ("name", "layout", "words"),
    [
        ("there.pth", "mmcls", "exists and is not overwritten"),
        ("link.pth", "mmcls", "exists and is not overwritten"),
        ("folder", "mmcls", "is a folder: name a file in it"),
        ("nowhere/model.pth", "mmcls", "there is no folder"),
        ("there.pth/model.pth", "mmcls", "there is no folder"),
        ("model.safetensors", "torchvision", r"ends in \.pth, not \.safetensors"),
        ("model.pth", "safetensors", r"ends in \.safetensors"),
    ],
)
def test_what_can_be_seen_to_fail_is_refused_before_anything_is_read(
    tmp_path: Path, name: str, layout: str, words: str
) -> None:
    (tmp_path / "there.pth").write_bytes(b"precious")
    (tmp_path / "link.pth").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()

    with pytest.raises(RequestError, match=words):
        export.check_target(tmp_path / name, layout)
    assert (tmp_path / "there.pth").read_bytes() == b"precious"


def check_as_nobody(_rank: int) -> None:
    become_nobody()
    export.check_target(Path("/model.pth"), "mmcls")


def test_folder_that_one_may_not_write_in_is_refused(workers: Any) -> None:
    with pytest.raises(RequestError, match=r"^/model\.pth: you may not write in /"):
        in_processes(workers, 1, check_as_nobody)


def limit_files() -> None:
    """Fail writes beyond a mebibyte, as a full disk does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))


def test_full_disk_is_one_line_and_leaves_nothing(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pth"
    done = warm.run(
        "train.export", "--run", run, "--layout", "mmcls", out,
        env=os.environ | ONE_THREAD, first=limit_files,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {out} cannot be written: File too large\n"
    assert list(tmp_path.iterdir()) == []


def fill_standard_output() -> None:
    """No more of it can be written, as on a full disk."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), sys.stdout.fileno())


def test_account_that_cannot_be_told_is_an_error_and_the_file_stays(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.pth"

    done = warm.run(
        "train.export", "--run", run, "--layout", "mmcls", out, first=fill_standard_output
    )

    words = "is written, but what is in it cannot be told: No space left on device"
    assert (done.returncode, done.stderr) == (1, f"error: {out} {words}\n")
    assert read_model(out, {}).usage.classes == CLASSES


def test_trained_model_leaves_with_the_weights_of_its_results(
    recipe: Recipe, whole_run: Callable[..., Path], tmp_path: Path
) -> None:
    run_dir = whole_run(recipe)
    out, told = write_export(run_dir, "mmcls", tmp_path)

    assert "step 6 (epoch 2): the final model" in told
    assert "warning" not in told
    predictor = read_model(out, {})
    assert predictor.usage.classes == list("0123456789")
    model = blank_model(recipe.model)
    load_weights(model, out)
    assert weights_sha256(model) == results(run_dir)["weights_sha256"]
