"""The weights loader: every layout, every entry accounted for, and what it refuses."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from configs.schema import Model
from tests import warm
from tests.train.layouts import LAYOUTS, Entries, Layout, mmcls, mmengine, save
from tests.train.unfit import FOREIGN, UNFIT
from train.containers import Checkpoint
from train.errors import RequestError
from train.layouts import find_network
from train.model import ResNet50, build_model
from train.weights import Account, load_weights, reconcile


@pytest.fixture(scope="session")
def fresh() -> tuple[ResNet50, Entries]:
    """A model of ten classes, and its entries as they begin."""
    model = build_model(Model(), seed=0)
    return model, {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def model(fresh: tuple[ResNet50, Entries]) -> ResNet50:
    fresh[0].load_state_dict(fresh[1])
    return fresh[0]


@pytest.fixture(scope="session")
def saved_entries(fresh: tuple[ResNet50, Entries]) -> Entries:
    """All 320 entries, none as it begins; in half the space, as some are published."""
    return {
        name: (value + 1).half() if value.is_floating_point() else value + 1
        for name, value in fresh[1].items()
    }


def is_loaded(model: ResNet50, account: Account, entries: Entries) -> bool:
    found = model.state_dict()
    return all(torch.equal(found[n], entries[n].to(found[n].dtype)) for n in account.loaded)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_loads_equal_and_is_accounted_for(
    model: ResNet50, saved_entries: Entries, tmp_path: Path, layout: Layout
) -> None:
    """Told by the content, not by the name; a second set of weights is never the loaded one."""
    path = tmp_path / "weights.of-any-name"
    others = {name: value + 1 for name, value in saved_entries.items()}
    with mmengine():
        save(layout.make(saved_entries, others), path, layout)
    account = load_weights(model, path)

    assert (account.layout, account.wrapping) == (layout.name, layout.wrapping)
    assert (account.container, len(account.loaded)) == (layout.container, layout.loaded)
    assert is_loaded(model, account, saved_entries)
    assert len(account.loaded) + len(account.reinitialised) == 320
    assert set(layout.ignored) <= account.ignored.keys()
    assert layout.ignored or not account.ignored


def read_back(content: Any, model: ResNet50, metadata: dict[str, str] | None = None) -> Account:
    """The account of a file with this content."""
    checkpoint = Checkpoint(content, metadata or {}, "zip", "0" * 64, 1)
    return reconcile(find_network(checkpoint), checkpoint, model.state_dict())[0]


def test_other_number_of_classes_starts_the_last_layer_anew(
    model: ResNet50, saved_entries: Entries
) -> None:
    head = {"fc.weight": torch.ones(1000, 2048), "fc.bias": torch.ones(1000)}
    account = read_back(saved_entries | head, model)

    assert len(account.loaded) == 318
    assert account.reinitialised == dict.fromkeys(
        ("fc.weight", "fc.bias"), "the file has 1000 classes, the recipe 10"
    )


def test_file_without_head_or_counters_is_taken_and_says_so(
    model: ResNet50, saved_entries: Entries
) -> None:
    old = {
        name: value
        for name, value in saved_entries.items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    account = read_back(old, model)

    assert len(account.loaded) == 265
    assert len(account.reinitialised) == 55
    assert account.reinitialised["fc.bias"] == "the file has no last layer"


@pytest.mark.parametrize("count", [7.0, 0.5, torch.inf])
def test_counters_that_were_cast_or_averaged_with_the_weights_begin_anew(
    model: ResNet50, saved_entries: Entries, count: float
) -> None:
    cast = {
        name: torch.tensor(count).half() if name.endswith("num_batches_tracked") else value
        for name, value in saved_entries.items()
    }
    account = read_back(cast, model)

    assert (len(account.loaded), len(account.reinitialised)) == (267, 53)
    reason = "the file has this counter as a floating-point number"
    assert account.reinitialised["bn1.num_batches_tracked"] == reason
    assert int(model.bn1.num_batches_tracked) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_floats_are_loaded_as_the_models(
    model: ResNet50, saved_entries: Entries, tmp_path: Path, dtype: torch.dtype
) -> None:
    weight = saved_entries["conv1.weight"].to(dtype)
    torch.save(saved_entries | {"conv1.weight": weight}, tmp_path / "weights.pth")
    load_weights(model, tmp_path / "weights.pth")

    assert torch.equal(model.conv1.weight.detach(), weight.float())


@pytest.mark.parametrize(("change", "reason"), FOREIGN + UNFIT)
def test_other_networks_and_unfit_entries_are_refused_by_what_they_are(
    model: ResNet50, saved_entries: Entries, change: Callable[[Entries], Any], reason: str
) -> None:
    with pytest.raises(RequestError, match=reason):
        read_back(change(saved_entries), model)


def test_refused_file_is_named_with_the_remedy_and_the_model_left_alone(
    fresh: tuple[ResNet50, Entries], model: ResNet50, saved_entries: Entries, tmp_path: Path
) -> None:
    """Although everything but the last entry would fit."""
    path = tmp_path / "weights.pth"
    torch.save(saved_entries | {"fc.bias": torch.full((10,), torch.inf)}, path)

    with pytest.raises(RequestError) as refusal:
        load_weights(model, path)
    assert str(refusal.value) == (
        f"model.weights: {path} does not fit this ResNet-50: fc.bias has values that are not "
        "finite in torch.float32. Give the checkpoint of a ResNet-50 with model.stem's stem, or "
        "set model.weights to null"
    )
    assert all(torch.equal(value, fresh[1][name]) for name, value in model.state_dict().items())


def test_hash_in_the_name_is_checked(
    model: ResNet50, saved_entries: Entries, tmp_path: Path
) -> None:
    """Eight digits alone are a date."""
    path = tmp_path / "weights.pth"
    torch.save(saved_entries, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for name in (f"resnet50-{digest[:64]}.pth", "resnet50_in1k-20210831.pth"):
        path = path.rename(tmp_path / name)
        assert load_weights(model, path).sha256 == digest
    path = path.rename(tmp_path / "resnet50-0676ba61.pth")

    with pytest.raises(RequestError, match=f"SHA-256 {digest[:16]}..., not the 0676ba61 of its na"):
        load_weights(model, path)


def test_table_is_short_and_says_what_the_file_is(model: ResNet50, saved_entries: Entries) -> None:
    config = "style='pytorch', img_norm_cfg = dict(mean=[123.675, 116.28], std=[58.4], to_rgb=True)"
    meta = {"mmcls_version": "0.23.0", "CLASSES": ["x"] * 1000, "config": config, "epoch": 100}
    others = {f"ema_{name}": value for name, value in saved_entries.items()}
    account = read_back({"meta": meta, "state_dict": mmcls(saved_entries) | others}, model)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(account.table("[red]weights.pth"))
    text = console.export_text()

    assert len(text.splitlines()) < 12
    for part in (
        "[red]weights.pth",
        "mmcls, in state_dict backbone.",
        "epoch 100, mmcls_version 0.23.0, classes 1,000, normalisation mean=[123.675, 116.28], std",
        "loaded  │ 320",
        "1: meta: no part of the network",
        "320: ema_conv1.weight, ema_bn1.weight, ema_bn1.bias, ema_bn1.running_mean and 316 more: ",
        "do not tell which convolution of a block strides",
    ):
        assert part in text
    assert account.summary().startswith("320 entries loaded (mmcls layout); ignored: meta, ema_con")


def test_command_prints_the_account(saved_entries: Entries, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"meta": {}, "state_dict": mmcls(saved_entries)}, path)
    outcome = warm.run("train.weights", path, "--classes", 100)

    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert "318" in outcome.stdout
    assert "2: fc.weight, fc.bias: the file has 10 classes" in " ".join(outcome.stdout.split())


@pytest.mark.parametrize("classes", [1, 20_000])
def test_command_takes_as_many_classes_as_a_recipe(tmp_path: Path, classes: int) -> None:
    outcome = warm.run("train.weights", tmp_path / "absent.pth", "--classes", classes)

    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.endswith("--classes takes a whole number from 2 to 1,000\n")


def test_command_refuses_with_exit_code_1(tmp_path: Path) -> None:
    outcome = warm.run("train.weights", tmp_path / "absent.pth")

    assert (outcome.returncode, outcome.stdout) == (1, "")
    assert outcome.stderr.startswith("refused: model.weights: there is no file")


def test_real_checkpoint_loads_whole(real_weights: Path) -> None:
    account = load_weights(build_model(Model(num_classes=1000), seed=0), real_weights)

    assert (account.layout, len(account.loaded)) == ("mmcls", 320)
