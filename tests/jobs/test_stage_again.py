"""`stage` once more: what came before is kept, and what is wrong is told once."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.archives import ARCHIVE_NAME
from jobs.errors import WorkError
from tests.jobs.test_stage import MD5, RECIPE, brought, lock, stage

__all__ = ["brought", "lock"]


def test_a_damaged_file_that_only_a_person_has_is_told_once(
    tmp_path: Path, brought: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bundle"
    stage(folder, brought, *RECIPE)
    place = folder / "files" / "data" / "cifar10" / ARCHIVE_NAME
    place.write_bytes(b"rot")
    capfd.readouterr()

    with pytest.raises(WorkError) as caught:
        stage(folder, [], *RECIPE)

    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"{place} has MD5 ")
    assert first.endswith(
        f", not {MD5}, and its address is not known, for data.md5 is not that of the published "
        f"archive; give it to this command by --from {ARCHIVE_NAME}"
    )
    assert "missing" not in str(caught.value)
    assert "it is replaced" not in capfd.readouterr().err
