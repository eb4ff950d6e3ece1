"""The weights loader: both layouts, every entry accounted for, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import resnet101, wide_resnet50_2

from configs.schema import Model
from train.errors import RequestError
from train.model import build_model
from train.weights import load_weights

PROJECT = Path(__file__).resolve().parents[2]
Entries = dict[str, Tensor]


@pytest.fixture(scope="session")
def imagenet() -> Entries:
    """All 320 entries of a ResNet-50 with 1,000 classes, none at its initial value."""
    entries = build_model(Model(num_classes=1000), seed=9).state_dict()
    return {name: value + 1 for name, value in entries.items()}


def mmcls(entries: Entries) -> dict[str, Any]:
    renamed = OrderedDict(
        (f"head.{name}" if name.startswith("fc.") else f"backbone.{name}", value)
        for name, value in entries.items()
    )
    return {"meta": {"mmcls_version": "0.15.0", "CLASSES": None}, "state_dict": renamed}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(content: Any, *, legacy: bool = False) -> Path:
        path = tmp_path / "weights.pth"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        return path

    return save


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("layout", ["torchvision", "mmcls"])
def test_layouts_load_equal_and_name_the_new_head(
    imagenet: Entries, saved: Callable[..., Path], layout: str, legacy: bool
) -> None:
    content = mmcls(imagenet) if layout == "mmcls" else imagenet
    model = build_model(Model(), seed=0)
    account = load_weights(model, saved(content, legacy=legacy))

    assert account.layout == layout
    assert len(account.loaded) == 318
    assert list(account.reinitialised) == ["fc.weight", "fc.bias"]
    assert list(account.ignored) == (["meta"] if layout == "mmcls" else [])
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], imagenet[name]) for name in account.loaded)
    fresh = build_model(Model(), seed=0).state_dict()
    assert torch.equal(loaded["fc.weight"], fresh["fc.weight"])


def test_checkpoint_of_ours_is_read_and_the_rest_of_its_state_named(
    imagenet: Entries, saved: Callable[..., Path]
) -> None:
    model = build_model(Model(num_classes=1000), seed=0)
    rest = {"optimizer": {"state": {}}, "step": 3, "ranks": {}}
    account = load_weights(model, saved({"model": imagenet} | rest))

    assert account.layout == "ours"
    assert len(account.loaded) == 320
    assert account.ignored == dict.fromkeys(rest, "no part of the network")
    assert torch.equal(model.fc.bias.detach(), imagenet["fc.bias"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_loaded_as_the_models(
    imagenet: Entries, saved: Callable[..., Path], dtype: torch.dtype
) -> None:
    model = build_model(Model(), seed=0)
    weight = imagenet["conv1.weight"].to(dtype)
    load_weights(model, saved(imagenet | {"conv1.weight": weight}))

    assert torch.equal(model.conv1.weight.detach(), weight.float())


def test_head_of_the_same_size_is_loaded(imagenet: Entries, saved: Callable[..., Path]) -> None:
    model = build_model(Model(num_classes=1000), seed=0)

    assert len(load_weights(model, saved(imagenet)).loaded) == 320
    assert torch.equal(model.fc.bias.detach(), imagenet["fc.bias"])


def test_file_without_head_or_counters_is_taken_and_says_so(
    imagenet: Entries, saved: Callable[..., Path]
) -> None:
    old = {
        name: value
        for name, value in imagenet.items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    account = load_weights(build_model(Model(), seed=0), saved(old))

    assert len(account.loaded) == 265
    assert len(account.reinitialised) == 55
    assert account.reinitialised["fc.bias"] == "the file has no last layer"


def without(entries: Entries, name: str) -> Entries:
    return {key: value for key, value in entries.items() if key != name}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda e: without(e, "layer1.0.conv1.weight"), "layer1.0.conv1.weight is missing"),
        (lambda e: without(e, "fc.bias"), "fc.bias is missing"),
        (lambda e: e | {"extra.weight": torch.ones(1)}, "extra.weight is not in ResNet-50"),
        (
            lambda e: e | {"conv1.weight": torch.ones(64, 3, 3, 3)},
            r"conv1.weight is \(64, 3, 3, 3\) in the file, \(64, 3, 7, 7\) in the model",
        ),
        (
            lambda e: e | {"bn1.bias": torch.full((64,), float("nan"))},
            "bn1.bias has values that are not finite",
        ),
        (
            lambda e: e | {"bn1.bias": torch.full((64,), 1e300, dtype=torch.float64)},
            "bn1.bias has values that are not finite in torch.float32",
        ),
        (
            lambda e: e | {"bn1.running_var": torch.full((64,), -5.0)},
            "bn1.running_var has negative values",
        ),
        (
            lambda e: e | {"bn1.bias": torch.ones(64, dtype=torch.complex64)},
            "bn1.bias is torch.complex64 in the file, torch.float32 in the model",
        ),
        (
            lambda e: e | {"conv1.weight": torch.ones(64, 3, 7, 7, dtype=torch.int8)},
            "conv1.weight is torch.int8 in the file, torch.float32 in the model",
        ),
        (
            lambda e: e | {"bn1.num_batches_tracked": torch.tensor(1.5)},
            "bn1.num_batches_tracked is torch.float32 in the file, torch.int64 in the model",
        ),
        (
            lambda e: e | {"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)},
            r"fc.weight \(10, 512\) and fc.bias \(10,\) are no last layer of 2048 inputs",
        ),
        (
            lambda e: e | {"fc.bias": torch.zeros(10)},
            r"fc.weight \(1000, 2048\) and fc.bias \(10,\) are no last layer of 2048 inputs",
        ),
        (
            lambda e: e | {"fc.weight": torch.tensor(1.0)},
            r"fc.weight \(\) and fc.bias \(1000,\) are no last layer of 2048 inputs",
        ),
        (lambda e: e | {"fc.bias": torch.tensor(1.0)}, r"fc.bias \(\) are no last layer"),
        (lambda e: e | {"epoch": 3}, "epoch in .* is no tensor"),
        (lambda e: {1: torch.ones(1)}, "1 in .* is an entry whose name is no text"),
        (lambda e: {key: value.to("meta") for key, value in e.items()}, "is no plain tensor"),
        (lambda e: e | {"conv1.weight": e["conv1.weight"].to_sparse()}, "is no plain tensor"),
        (lambda e: {"model": e}, "model in .* is no tensor"),
        (lambda e: {"state_dict": None}, "holds no entries of a network"),
        (lambda e: {}, "holds no entries of a network"),
        (list, "holds no dictionary"),
        (lambda e: resnet101().state_dict(), "layer3.6.conv1.weight is not in ResNet-50.* more"),
        (lambda e: wide_resnet50_2().state_dict(), "layer1.0.conv1.weight is "),
    ],
)
def test_other_content_is_refused_and_the_model_left_alone(
    imagenet: Entries,
    saved: Callable[..., Path],
    change: Callable[[Entries], Any],
    reason: str,
) -> None:
    model = build_model(Model(), seed=0)

    with pytest.raises(RequestError, match=reason):
        load_weights(model, saved(change(imagenet)))
    fresh = build_model(Model(), seed=0).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in model.state_dict().items())


def test_two_names_of_one_entry_are_refused_and_both_named(
    imagenet: Entries, saved: Callable[..., Path]
) -> None:
    content = mmcls(imagenet)
    content["state_dict"]["conv1.weight"] = torch.zeros(64, 3, 7, 7)

    with pytest.raises(RequestError, match=r"has both backbone\.conv1\.weight and conv1\.weight"):
        load_weights(build_model(Model(), seed=0), saved(content))


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_file_is_refused_or_read_but_never_a_crash(
    saved: Callable[..., Path], legacy: bool
) -> None:
    """300 files with up to four wrong bytes, some of them cut off as well."""
    source = np.random.default_rng(0)
    path = saved({"state_dict": {"conv1.weight": torch.ones(4)}, "meta": {}}, legacy=legacy)
    whole = path.read_bytes()
    model = build_model(Model(), seed=0)
    for _ in range(300):
        content = bytearray(whole)
        for index in source.integers(len(content), size=source.integers(1, 5)):
            content[index] = source.integers(256)
        end = len(content) if source.random() < 0.7 else source.integers(len(content))
        path.write_bytes(content[:end])
        with pytest.raises(RequestError):  # a sound one lacks 319 entries
            load_weights(model, path)


class Malicious:
    """Asks, when unpickled, for a command to be run."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_pickle_that_asks_for_code_is_refused_and_not_run(
    saved: Callable[..., Path], tmp_path: Path
) -> None:
    mark = tmp_path / "was-here"
    path = saved({"state_dict": Malicious(f"touch {mark}")})

    with pytest.raises(RequestError, match="no checkpoint that can be read safely"):
        load_weights(build_model(Model(), seed=0), path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
def test_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)

    with pytest.raises(RequestError, match=str(path)):
        load_weights(build_model(Model(), seed=0), path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"there is no file .*absent\.pth"):
        load_weights(build_model(Model(), seed=0), tmp_path / "absent.pth")


def account_of(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "train.weights", str(path)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


def test_command_prints_the_account(imagenet: Entries, saved: Callable[..., Path]) -> None:
    outcome = account_of(saved(mmcls(imagenet)))

    assert outcome.returncode == 0
    assert "318" in outcome.stdout
    assert "loaded (mmcls layout)" in outcome.stdout
    assert "fc.weight: re-initialised" in outcome.stdout


def test_command_refuses_with_exit_code_1(tmp_path: Path) -> None:
    outcome = account_of(tmp_path / "absent.pth")

    assert outcome.returncode == 1
    assert outcome.stderr.startswith("refused: model.weights: there is no file")


def test_real_checkpoint_loads_whole(real_weights: Path) -> None:
    model = build_model(Model(num_classes=1000), seed=0)
    account = load_weights(model, real_weights)

    assert (account.layout, len(account.loaded)) == ("mmcls", 320)
