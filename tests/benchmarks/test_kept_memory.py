"""Both ways are timed, each in processes of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_both_ways_are_timed(measure: Callable[..., Any]) -> None:
    printed, found = measure("kept_memory", "--sizes", "32x2", "--steps=1", "--rounds=1")

    [result] = found["results"]
    [kept], [given_back] = (result["seconds"][name] for name in ("kept", "given back"))
    assert result["kept_over_given_back"]["median"] == kept / given_back
    assert f"{1e3 * kept:.0f}" in printed
    # A page that was given back is asked for anew, and that is a page fault.
    [few], [many] = (result["page_faults_a_step"][name] for name in ("kept", "given back"))
    assert few < many / 2
