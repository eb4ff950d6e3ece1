"""Killed while it saves, the trainer resumes to the same bits.

`make drill` tries 100 moments, with the whole network.
"""

from __future__ import annotations

import pytest

from tests.drills import crash_points


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
def test_killed_in_every_phase_of_a_checkpoint_write_the_end_is_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    moments = len(crash_points.PHASES)
    assert crash_points.main(["--moments", str(moments), "--only-phases"]) == 0

    out = capsys.readouterr().out
    assert out.endswith(f"{moments} of {moments}\n")
    for phase in crash_points.PHASES:
        assert f"killed: {phase}" in out
