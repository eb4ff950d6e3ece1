"""torch.compile for the training step, with what it made kept where the next run finds it."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

# What Inductor and Triton made, and where they look for it (docs.pytorch.org, "Compile Time
# Caching in torch.compile").
CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}


def compile_model(model: nn.Module, root: Path) -> nn.Module:
    """`model`, whose parameters it shares, compiled anew for each shape of its input.

    Args:
        model: the network.
        root: the folder of all run directories. What was compiled is kept there, in a folder of
            this user alone, for it is code that later runs load; the environment's own choice of a
            folder wins.
    """
    folder = root / f".compiled-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid == os.getuid():
        for variable, name in CACHES.items():
            os.environ.setdefault(variable, str(folder / name))
    compiled: nn.Module = torch.compile(model, dynamic=False)
    return compiled
