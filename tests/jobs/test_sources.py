"""What is known of the files that a bundle carries, and how they are told."""

from __future__ import annotations

from configs.archives import OFFICIAL_BYTES, OFFICIAL_MD5
from configs.schema import Data
from jobs.manifest import Facts
from jobs.sources import SOURCES, archive_source, weights_source

MD5 = "0123456789abcdef" * 2


def test_the_table_says_what_is_known_and_no_more() -> None:
    for source in SOURCES.values():
        assert source.address
        assert source.address.startswith("https://")
        assert source.sha256
        assert len(source.sha256) in (8, 64)
        assert set(source.sha256) <= set("0123456789abcdef")
        # Published with one name, and with one digest.
        assert weights_source(source.name) == source
    official = archive_source(Data())
    assert (official.size, official.md5) == (OFFICIAL_BYTES, OFFICIAL_MD5)


def test_a_hash_in_a_name_is_held_to() -> None:
    facts = Facts(5, "ab" * 32, "")

    assert weights_source("mine-abababab.pth").objection(facts) is None
    assert "not 12345abc" in str(weights_source("mine-12345abc.pth").objection(facts))
    assert weights_source("mine-20210831.pth").objection(facts) is None


def test_an_archive_is_held_to_the_recipes_md5() -> None:
    assert archive_source(Data(md5="none")).objection(Facts(5, "", "x")) is None
    assert archive_source(Data(md5=MD5)).objection(Facts(5, "", MD5)) is None
    assert archive_source(Data(md5=MD5)).address is None
    assert "has 5 bytes" in str(archive_source(Data()).objection(Facts(5, "", OFFICIAL_MD5)))
