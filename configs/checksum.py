"""What a file's name promises of its content."""

from __future__ import annotations

import re

# The first digits of a file's SHA-256 end its name, as PyTorch's hub, timm and MMClassification
# write it, and as our own checkpoints are named.
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


def promised_sha256(name: str) -> str | None:
    """The hex digits that the SHA-256 of a file of this name must begin with; None for no promise.

    A date, such as 20210831, is digits alone; so no run of those promises anything.
    """
    match = HASH_IN_NAME.search(name)
    return match.group(1) if match and not match.group(1).isdecimal() else None
