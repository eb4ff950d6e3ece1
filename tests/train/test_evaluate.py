"""Evaluation: the same integers for any number of ranks, each image counted once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.schema import Data, Evaluate, Recipe
from train.dataset import load_dataset
from train.distributed import Ranks, average_buffers, is_loopback, read_place
from train.errors import RequestError
from train.evaluate import Scores, evaluate
from train.images import to_input
from train.model import build_model
from train.stop import StopFlag
from train.vote import StopVote

RECIPE = Recipe(data=Data(resolution=32, md5="none"), evaluate=Evaluate(batch_size=40))


def digest(ranks: Ranks, root: str) -> dict[str, Any]:
    """The scores of one seed's weights on 299 digits, in batches of 40 with one of 19."""
    dataset = load_dataset(RECIPE.data.model_copy(update={"root": root}), ranks.device)
    model = build_model(RECIPE.model, seed=0)
    vote = StopVote(StopFlag(), ranks)
    scores = evaluate(model, dataset.test, RECIPE, ranks, contextlib.nullcontext(), vote)
    assert scores is not None
    assert model.training
    return {
        "top1": scores.top1_percent,
        "top5": scores.top5_percent,
        "confusion": scores.confusion.tolist(),
        "loss": scores.loss,
        "predictions": scores.predictions.tolist(),
        "batches": scores.num_batches,
    }


def test_any_number_of_ranks_gives_the_same_integers(
    digits_root: Path, on_ranks: Callable[..., list[Any]]
) -> None:
    """With 1, 2, 3 and 7 ranks, on all ranks, down to each prediction and the loss's last bit."""
    [alone] = on_ranks(1, digest, str(digits_root))

    assert sum(map(sum, alone["confusion"])) == 299
    assert alone["batches"] == 8
    for world_size in (2, 3, 7):
        assert on_ranks(world_size, digest, str(digits_root)) == [alone] * world_size


def flip_digest(ranks: Ranks, root: str) -> list[dict[str, Any]]:
    """The scores without mirror images; beside them, and of them: 99 digits in 3 batches."""
    data = RECIPE.data.model_copy(update={"root": root, "test_images": 99})
    dataset = load_dataset(data, ranks.device)
    model = build_model(RECIPE.model, seed=0)
    vote = StopVote(StopFlag(), ranks)
    told = []
    for flip in (False, True):
        recipe = RECIPE.model_copy(update={"evaluate": Evaluate(batch_size=40, flip=flip)})
        found = evaluate(model, dataset.test, recipe, ranks, contextlib.nullcontext(), vote)
        assert found is not None
        both = [found] if found.flip is None else [found, found.flip]
        told += [
            {
                "loss": each.loss,
                "top1": each.top1_percent,
                "top5": each.top5_percent,
                "predictions": each.predictions.tolist(),
                "confidences": each.confidences.tolist(),
            }
            for each in both
        ]
    return told


def test_mirror_images_are_scored_apart_and_leave_the_other_scores_alone(
    digits_root: Path, on_ranks: Callable[..., list[Any]]
) -> None:
    """The mean of the logits; the same numbers on 1 and 3 ranks, to the last bit."""
    [[plain, beside, averaged]] = on_ranks(1, flip_digest, str(digits_root))

    assert beside == plain
    assert averaged["confidences"] != plain["confidences"]
    assert on_ranks(3, flip_digest, str(digits_root)) == [[plain, beside, averaged]] * 3

    data = RECIPE.data.model_copy(update={"root": str(digits_root), "test_images": 99})
    split = load_dataset(data, torch.device("cpu")).test
    model = build_model(RECIPE.model, seed=0).eval()
    batches = zip(split.images.split(40), split.labels.split(40), strict=True)
    hits, hits5, chosen = 0, 0, []
    with torch.no_grad():
        for pixels, labels in batches:
            logits = [model(to_input(view, data, 32)) for view in (pixels, pixels.flip(2))]
            mean = (logits[0] + logits[1]) / 2
            chosen += mean.argmax(dim=1).tolist()
            hits += int((mean.argmax(dim=1) == labels).sum())
            hits5 += int((mean.topk(5).indices == labels[:, None]).sum())
    assert averaged["predictions"] == chosen
    assert averaged["top1"] == 100 * hits / 99
    assert averaged["top5"] == 100 * hits5 / 99


def scores(predictions: list[int], labels: list[int], top5: list[bool]) -> Scores:
    return Scores(
        loss=0.0,
        top5=torch.tensor(top5),
        predictions=torch.tensor(predictions),
        confidences=torch.ones(len(labels)),
        labels=torch.tensor(labels),
        num_classes=3,
        num_batches=1,
    )


def test_scores_are_percentages_and_confusion_rows_are_true_classes() -> None:
    counted = scores([0, 1, 1, 2], [0, 1, 2, 0], [True, True, True, False])

    assert (counted.top1_percent, counted.top5_percent) == (50.0, 75.0)
    assert counted.confusion.tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]


def averaged_statistics(ranks: Ranks) -> list[float]:
    model = build_model(RECIPE.model, seed=0)
    model.bn1.running_mean.fill_(ranks.rank)
    average_buffers(model, ranks)
    counter = model.bn1.num_batches_tracked
    return [float(model.bn1.running_mean[0]), float(model.bn1.running_var[0]), int(counter)]


def test_batch_norm_statistics_become_their_mean_over_ranks(
    on_ranks: Callable[..., list[Any]],
) -> None:
    assert on_ranks(3, averaged_statistics) == [[1.0, 1.0, 0]] * 3


def refused_on_rank_1(ranks: Ranks) -> str:
    def work() -> int:
        if ranks.rank == 1:
            raise RequestError("rank 1 has no such file")
        return ranks.rank

    try:
        return str(ranks.together(work))
    except RequestError as error:
        return f"refused: {error}"


def test_refusal_of_one_rank_is_everybodys(on_ranks: Callable[..., list[Any]]) -> None:
    assert on_ranks(3, refused_on_rank_1) == ["refused: rank 1 has no such file"] * 3
    assert on_ranks(1, refused_on_rank_1) == ["0"]


def test_half_set_environment_is_refused() -> None:
    with pytest.raises(RequestError, match=r"but not LOCAL_RANK, WORLD_SIZE, .* MASTER_PORT"):
        read_place({"RANK": "1"})


def test_no_variables_mean_one_process() -> None:
    assert read_place({"SLURM_PROCID": "3"}) == {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "WORLD_SIZE": 1,
        "LOCAL_WORLD_SIZE": 1,
    }


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("n1", False)],
)
def test_loopback_addresses_are_known(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
