"""The files that a bundle may need and where they are published.

Sizes and whole digests are those of the files as published. Where only the first digits of a
SHA-256 are public, in the file's name, the table has these and no more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from configs.archives import PUBLISHED
from configs.checksum import promised_sha256
from configs.data import Data
from jobs.manifest import Facts

_OPENMMLAB = "https://download.openmmlab.com/mmclassification/v0/resnet"
_PYTORCH = "https://download.pytorch.org/models"
_TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-rsb-weights"


@dataclass(frozen=True)
class Source:
    """A file that is published, or that a person has: what is known of it before it is there.

    Attributes:
        name: what it is called in the bundle and by the recipe.
        address: where it is published; None if that is not known.
        size: bytes; None if not known.
        sha256: its SHA-256, or the first digits of it.
        md5: its MD5.
    """

    name: str
    address: str | None = None
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None

    def objection(self, facts: Facts) -> str | None:
        """Why a file with these facts is not the one; None if nothing speaks against it."""
        if self.size is not None and facts.size != self.size:
            return f"has {facts.size:,} bytes, not {self.size:,}"
        if self.sha256 and not facts.sha256.startswith(self.sha256):
            return f"has SHA-256 {facts.sha256[:16]}..., not {self.sha256[:16]}"
        if self.md5 and facts.md5 != self.md5:
            return f"has MD5 {facts.md5}, not {self.md5}"
        return None

    def is_known_by_content(self) -> bool:
        """Whether a file can be told to be this one whatever it is called."""
        return bool(self.sha256 or self.md5)


SOURCES = {
    source.name: source
    for source in (
        *(
            Source(name, archive.url, archive.num_bytes, archive.sha256, archive.md5)
            for name, archive in PUBLISHED.items()
        ),
        Source(
            "resnet50_8xb32_in1k_20210831-ea4938fc.pth",
            f"{_OPENMMLAB}/resnet50_8xb32_in1k_20210831-ea4938fc.pth",
            sha256="ea4938fc",
        ),
        Source(
            "resnet50_8xb256-rsb-a1-600e_in1k_20211228-20e21305.pth",
            f"{_OPENMMLAB}/resnet50_8xb256-rsb-a1-600e_in1k_20211228-20e21305.pth",
            sha256="20e21305",
        ),
        Source(
            "resnet50-0676ba61.pth",
            f"{_PYTORCH}/resnet50-0676ba61.pth",
            102_530_333,
            "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        ),
        Source(
            "resnet50-11ad3fa6.pth",
            f"{_PYTORCH}/resnet50-11ad3fa6.pth",
            102_540_417,
            "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
        ),
        Source(
            "resnet50_a1_0-14fe96d1.pth", f"{_TIMM}/resnet50_a1_0-14fe96d1.pth", sha256="14fe96d1"
        ),
        Source(
            # There it is called model.safetensors, as all models are.
            "resnet50.a1_in1k.safetensors",
            "https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors",
            102_469_840,
            "773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
        ),
    )
}


def archive_source(data: Data) -> Source:
    """The archive that `data` asks for."""
    official = SOURCES.get(data.archive)
    if official and data.md5 in ("official", official.md5):
        return official
    return Source(data.archive, md5=None if data.md5 == "none" else data.md5)


def weights_source(name: str) -> Source:
    """The checkpoint of this name: one of the table, or what a person calls so."""
    known = SOURCES.get(name, Source(name))
    return known if known.sha256 else replace(known, sha256=promised_sha256(name))
