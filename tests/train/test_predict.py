"""Predictions: evaluation's own logits, exact CSV, and nothing lost of what can be done."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.schema import Evaluate, Recipe
from tests import warm
from tests.train.conftest import ONE_THREAD
from tests.train.made_runs import CLASSES, make_recipe, make_run
from tests.train.predictions import COUNT, CPU, digits, run, state
from train import predict, writers
from train.dataset import load_dataset
from train.distributed import Ranks
from train.evaluate import evaluate
from train.images import to_input
from train.photos import read_photo
from train.prediction import BATCH, Predictor, read_model
from train.prediction import predict as predict_images
from train.stop import StopFlag
from train.vote import StopVote

__all__ = ["digits", "state"]


@pytest.fixture(scope="session")
def predictor(state: Path) -> Predictor:
    return read_model(state, {})


def network(predictor: Predictor) -> torch.nn.Module:
    """Its only replica."""
    replica, device = predictor._idle.get()
    predictor._idle.put((replica, device))
    return replica


def test_images_of_the_test_set_get_evaluations_own_predictions(
    predictor: Predictor, digits: Path, digits_root: Path
) -> None:
    """Down to the last bit, in equal batches: from a PNG file and from the data set."""
    base = make_recipe()
    data = base.data.model_copy(update={"root": str(digits_root), "test_images": COUNT})
    recipe = Recipe(data=data, model=base.model, evaluate=Evaluate(batch_size=BATCH))
    split = load_dataset(data, CPU).test
    replica = network(predictor)
    alone = Ranks(0, 0, 1, 1, CPU)
    vote = StopVote(StopFlag(), alone)
    scores = evaluate(replica, split, recipe, alone, contextlib.nullcontext(), vote)
    replica.eval()
    assert scores is not None

    found = list(predict_images(predictor, [digits], lambda path, why: pytest.fail(why)))

    assert [each.file.name for each in found] == [f"{n:04d}.png" for n in range(COUNT)]
    assert [each.label for each in found] == [CLASSES[k] for k in scores.predictions.tolist()]
    assert [each.confidence for each in found] == scores.confidences.tolist()
    photos = np.stack([read_photo(path) for path in sorted(digits.iterdir())[:BATCH]])
    with torch.no_grad():
        logits = replica(to_input(split.images[:BATCH], data, data.resolution))
    assert torch.equal(predictor.logits(photos), logits)


def test_csv_is_exact(
    state: Path,
    predictor: Predictor,
    digits: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = [digits / "0001.png", digits / "0000.png"]
    code, rows, err = run(capfdbinary, monkeypatch, "--checkpoint", state, *files)

    logits = predictor.logits(np.stack([read_photo(path) for path in files]))
    confidences, best = logits.softmax(dim=1).max(dim=1)
    assert code == 0
    assert rows == [
        ["file", "class", "confidence"],
        *(
            [str(path), CLASSES[index], f"{confidence:.6f}"]
            for path, index, confidence in zip(
                files, best.tolist(), confidences.tolist(), strict=True
            )
        ),
    ]
    assert err.startswith("2 images in ")


def test_every_layout_says_the_same(
    tmp_path: Path,
    digits: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dir = make_run(tmp_path, "cifar")
    bare = ["--classes", ",".join(CLASSES), "--resolution", "32", "--mean", "120,110.5,100"]
    [state] = (run_dir / "checkpoints").glob("*.pt")
    told = [run(capfdbinary, monkeypatch, "--checkpoint", state, digits / "0000.png")[1]]
    for layout, options in (("mmcls", []), ("safetensors", []), ("torchvision", bare)):
        out = tmp_path / f"{layout}.{'safetensors' if layout == 'safetensors' else 'pth'}"
        writers.export(run_dir, layout, out, best=False)
        code, rows, _ = run(
            capfdbinary, monkeypatch, "--checkpoint", out, *options, digits / "0000.png"
        )
        assert code == 0
        told.append(rows)

    assert told == told[:1] * 4


def test_unreadable_images_are_named_and_the_others_done(
    state: Path,
    digits: Path,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strange = tmp_path / os.fsdecode(b'a, "b"\n\xff.png')
    shutil.copy(digits / "0000.png", strange)
    (tmp_path / "bad.png").write_text("no image")
    monkeypatch.setattr(sys, "argv", ["predict", "--checkpoint", str(state), str(tmp_path)])

    assert predict.main() == 1

    out, err = capfdbinary.readouterr()
    name = os.fsencode(strange).replace(b'"', b'""')
    assert out.startswith(b'file,class,confidence\n"' + name + b'",kind ')
    assert out.count(b"kind ") == 1
    lines = err.decode().splitlines()
    assert lines[0].startswith(f"{tmp_path}/bad.png: it is no image in one of these formats: ")
    assert lines[1].endswith(" s; 1 could not be read")


def test_output_is_written_whole_and_only_then(
    state: Path,
    digits: Path,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = tmp_path / "found.csv"
    arguments = ("--checkpoint", state, "--output", target, digits / "0000.png")
    code, rows, _ = run(capfdbinary, monkeypatch, *arguments)

    assert (code, rows) == (0, [])
    assert target.read_text().startswith("file,class,confidence\n")
    assert list(tmp_path.iterdir()) == [target]
    nowhere = tmp_path / "nowhere" / "found.csv"
    code, _, err = run(capfdbinary, monkeypatch, *arguments[:3], nowhere, digits / "0000.png")
    assert code == 1
    assert err == f"error: {nowhere} cannot be written: No such file or directory\n"


def test_output_goes_through_a_link_and_into_a_pipe(
    state: Path,
    digits: Path,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, link, pipe = (tmp_path / name for name in ("real.csv", "link.csv", "pipe"))
    real.write_text("before")
    link.symlink_to(real)
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_text)
        for output in (link, pipe):
            arguments = ("--checkpoint", state, "--output", output, digits / "0000.png")
            assert run(capfdbinary, monkeypatch, *arguments)[0] == 0

    assert link.is_symlink()
    assert pipe.is_fifo()
    assert real.read_text() == read.result()
    assert read.result().startswith("file,class,confidence\n")


def test_several_devices_share_the_batches_and_the_order_stays(
    predictor: Predictor, digits: Path
) -> None:
    replica = network(predictor)
    both = Predictor(replica, predictor.usage, [CPU, CPU])
    sources = [digits, digits]

    alone = list(predict_images(predictor, sources, lambda path, why: pytest.fail(why)))
    shared = list(predict_images(both, sources, lambda path, why: pytest.fail(why)))

    assert len(alone) == 2 * COUNT
    assert shared == alone


def unread() -> None:
    """Make stdout a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, sys.stdout.fileno())


def test_reader_that_goes_away_is_no_error(state: Path, digits: Path) -> None:
    """As `| true` goes away in a shell."""
    done = warm.Started(
        "train.predict", "--checkpoint", state, digits, env=os.environ | ONE_THREAD, first=unread
    ).wait()

    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
