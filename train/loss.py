"""The loss that training lowers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def smoothed_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Mean cross-entropy with label smoothing as MMClassification defines it (mode 'original').

    The target is (1 - e) * onehot + e / K for `label_smoothing` e and K classes; e = 0 is the plain
    cross-entropy. The arithmetic is in float32 whatever the logits are.

    Args:
        logits: (B, K), of any float type.
        targets: classes, int64 (B,), or what each class has of an image, float32 (B, K).
        label_smoothing: share of the target spread over all classes, the right one included.

    Returns:
        float32 ().
    """
    return F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
