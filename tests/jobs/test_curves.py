"""Curves in characters."""

from __future__ import annotations

from jobs import curves

RISING = [(step, float(step)) for step in range(1, 9)]


def test_a_curve_goes_from_corner_to_corner() -> None:
    assert curves.draw(RISING, 16, 4, braille=False) == [
        "      8       **",
        "            **",
        "          **",
        "      1 **",
    ]


def test_a_braille_character_holds_eight_dots() -> None:
    assert curves.draw(RISING, 12, 2, braille=True) == ["      8 ⠀⠀⡠⠊", "      1 ⡠⠊⠀⠀"]


def test_what_lies_between_two_points_is_a_straight_line() -> None:
    assert curves.draw([(0, 0.0), (100, 2.0)], 14, 3, braille=False) == [
        "      2     **",
        "          **",
        "      0 **",
    ]


def test_a_steep_curve_has_no_holes() -> None:
    steep = [(0, 3.0), (1, 0.0), (2, 0.0), (3, 0.0)]

    assert curves.draw(steep, 12, 4, braille=False) == [
        "      3 *",
        "         *",
        "         *",
        "      0  ***",
    ]


def test_points_that_share_a_column_are_averaged() -> None:
    many = [(step, float(step % 2)) for step in range(1000)]

    lines = curves.draw(many, 10, 3, braille=False)
    assert [line[:7].strip() for line in (lines[0], lines[-1])] == ["0.5", "0.5"]


def test_one_point_or_none_is_a_curve_too() -> None:
    assert curves.draw([], 20, 3, braille=True) == ["", "", ""]
    assert curves.draw([(5, 0.25)], 20, 3, braille=False) == ["   0.25", "        *", "   0.25"]


def test_labels_keep_to_their_column() -> None:
    for value in (0.00012345, 12345678.9, 97.234567, -0.5, 1e-12):
        [line] = curves.draw([(1, value)], 20, 1, braille=False)
        assert line[curves.LABEL_WIDTH] == " "
