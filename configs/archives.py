"""Archives of images that everybody can get, and how large any archive may be."""

from __future__ import annotations

from typing import NamedTuple

ARCHIVE_NAME = "cifar-10-python.tar.gz"
ARCHIVE_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
OFFICIAL_MD5 = "c58f30108f718f92721af3b95e74349a"
OFFICIAL_BYTES = 170_498_071
LARGEST_ARCHIVE_BYTES = 2 * 2**30  # packed, and unpacked: 650,000 images
MOST_CLASSES = 1_000


class Published(NamedTuple):
    """An archive that everybody can get: from where, its sums, its bytes and what is in it."""

    url: str
    md5: str
    sha256: str
    num_bytes: int
    num_classes: int
    num_train: int
    num_test: int


PUBLISHED = {
    ARCHIVE_NAME: Published(
        ARCHIVE_URL,
        OFFICIAL_MD5,
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        OFFICIAL_BYTES,
        10,
        50_000,
        10_000,
    ),
    "cifar-100-python.tar.gz": Published(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        169_001_437,
        100,
        50_000,
        10_000,
    ),
}
