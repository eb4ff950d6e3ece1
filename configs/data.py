"""The section of a recipe on the images and what happens to them before the network sees them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from configs.archives import ARCHIVE_NAME, PUBLISHED
from configs.section import NAME_PATTERN, Pixels, Section

Channels = Annotated[list[float], Field(min_length=3, max_length=3)]


class Data(Section):
    """The images and what happens to them before the network sees them."""

    root: str = Field("data/cifar10", min_length=1, description="folder that holds the archive")
    source: Literal["archive", "digits"] = Field(
        "archive",
        description="archive: the file brought along; digits: scikit-learn's handwritten digits, "
        "written into data.root as such an archive first",
    )
    md5: str = Field(
        "official", description="of the archive: official, none (unchecked) or 32 hex digits"
    )
    archive: str = Field(
        ARCHIVE_NAME,
        description="file in data.root: CIFAR-10's or CIFAR-100's, or another in their layout",
    )
    local_copy: bool = Field(
        False,
        description="map a copy in each node's TMPDIR, for shared storage that is slow when many "
        "nodes read one file",
    )
    train_images: int | None = Field(None, ge=1, description="use only the first N; null: all")
    test_images: int | None = Field(None, ge=1, description="use only the first N; null: all")
    crop_padding: int = Field(
        4, ge=0, le=32, description="zero pixels added on each side before a random 32 x 32 crop"
    )
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    mixup: float = Field(
        0.0,
        ge=0,
        le=100,
        description="alpha of mixup: two images and their labels are blended, by a share from "
        "Beta(alpha, alpha); 0: off",
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        le=100,
        description="alpha of cutmix: a box of another image is pasted in, its area 1 - a share "
        "from Beta(alpha, alpha), and the labels are blended by the areas; 0: off",
    )
    mix_probability: float = Field(
        1.0,
        gt=0,
        le=1,
        description="of a batch to be mixed; half of these by each of mixup and cutmix, if both "
        "are on",
    )
    mix_until: float = Field(
        1.0, gt=0, le=1, description="share of the run's steps after which no batch is mixed"
    )
    resolution: Pixels = Field(
        224, description="side in pixels that images are resized to, bilinear"
    )
    mean: Channels = Field(
        [125.307, 122.961, 113.8575], description="subtracted, per channel R G B, in grey levels"
    )
    std: Channels = Field(
        [51.5865, 50.847, 51.255], description="divided by, per channel R G B, in grey levels"
    )

    @field_validator("md5")
    @classmethod
    def _md5_is_one(cls, value: str) -> str:
        if value not in ("official", "none") and not re.fullmatch(r"^[0-9a-f]{32}$", value):
            raise ValueError("give 'official', 'none' or 32 lower-case hex digits")
        return value

    @field_validator("archive")
    @classmethod
    def _archive_is_a_file_name(cls, value: str, others: ValidationInfo) -> str:
        if not re.fullmatch(NAME_PATTERN, value) or not value.endswith(".tar.gz"):
            raise ValueError(
                "give the name of a file in data.root, of letters, digits, '.', '_' and '-', "
                "that ends in .tar.gz"
            )
        if others.data.get("md5") == "official" and value not in PUBLISHED:
            raise ValueError(
                f"data.md5 is official, which only {' and '.join(PUBLISHED)} are: set data.md5 to "
                "the MD5 of this file or to none"
            )
        return value

    @property
    def is_mixed(self) -> bool:
        """Whether there are batches whose images are mixed with each other."""
        return self.mixup > 0 or self.cutmix > 0

    @field_validator("mixup", "cutmix")
    @classmethod
    def _alpha_mixes(cls, value: float) -> float:
        if 0 < value < 0.001:
            raise ValueError("an alpha below 0.001 mixes next to nothing: 0 switches it off")
        return value

    @field_validator("mean")
    @classmethod
    def _mean_is_in_grey_levels(cls, value: list[float]) -> list[float]:
        if max(map(abs, value)) > 10_000:
            raise ValueError("every channel's mean must be from -10000 to 10000 grey levels")
        return value

    @field_validator("std")
    @classmethod
    def _std_is_in_grey_levels(cls, value: list[float], others: ValidationInfo) -> list[float]:
        if not 0.001 <= min(value) <= max(value) <= 10_000:
            raise ValueError(
                "every channel's standard deviation must be from 0.001 to 10000 grey levels"
            )
        mean = others.data.get("mean", [0.0])
        if 0 < min(mean) <= max(mean) <= 1 and max(value) < 1:
            raise ValueError(
                f"this and data.mean {mean} are of images from 0 to 1, and these are from 0 to "
                "255: multiply both by 255"
            )
        return value
