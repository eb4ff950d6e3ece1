"""The loss, against its formula written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from train.loss import smoothed_cross_entropy


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(16, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_mmcls_formula(logits: Tensor, smoothing: float) -> None:
    """Target (1 - eps) * onehot + eps / K; mean over images of -sum(target * log softmax)."""
    labels = torch.arange(16) % 10
    target = (1 - smoothing) * F.one_hot(labels, 10) + smoothing / 10
    expected = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()

    assert torch.allclose(smoothed_cross_entropy(logits, labels, smoothing), expected)


def test_loss_of_bf16_logits_is_worked_out_in_float32(logits: Tensor) -> None:
    labels = torch.arange(16) % 10
    coarse = logits.bfloat16()
    loss = smoothed_cross_entropy(coarse, labels, 0.1)

    assert loss.dtype == torch.float32
    assert torch.equal(loss, smoothed_cross_entropy(coarse.float(), labels, 0.1))
