"""YAML is read by the 1.2 rules, and what is written is read back equal."""

from __future__ import annotations

import math
from itertools import product

import pytest
import yaml

from configs import yaml12
from configs.yaml12 import YamlError

AWKWARD_TEXTS = (
    *(
        "",
        " ",
        "no",
        "Yes",
        "on",
        "true",
        "null",
        "~",
        "=",
        "<<",
        "1e-3",
        "1E5",
        "1.0",
        ".5",
        "017",
    ),
    *("0o17", "0x1F", "0b1", "1_000", "12:00:00", "190:20:30", "2024-01-01", ".inf", ".NaN", "-"),
    *(
        "a: b",
        "a #b",
        "#",
        "- a",
        "[",
        "{a}",
        "&a",
        "*a",
        "!a",
        "%a",
        "@a",
        "`a",
        "'",
        '"',
        "\\",
        "\t",
    ),
    *(
        " a",
        "a ",
        "a\nb",
        "\n",
        "a\n",
        " \n a",
        "\r",
        "\x85",
        "\u2028",
        "\ufeff",
        "é",
        "😀",
        "\x07",
    ),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("+1.5e+3", 1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("017", 17),
        ("-3", -3),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("off", "off"),
        ("12:00:00", "12:00:00"),
        ("190:20:30", "190:20:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("'1'", "1"),
        ("[1, a, null]", [1, "a", None]),
        ("{no: 1, 2: b}", {"no": 1, "2": "b"}),
        ("<<: 1", {"<<": 1}),
        ("a: &anchor 1", {"a": 1}),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    read = yaml12.read(text).value

    assert read == value
    assert type(read) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(yaml12.read(".nan").value)


def test_every_key_has_its_line() -> None:
    document = yaml12.read("a:\n  b: 1\n\n  c: {d: 2}\ne: 3\n")

    assert (document.lines) == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 4,
        ("a", "c", "d"): 4,
        ("e",): 5,
    }


def test_a_key_given_twice_is_told_with_both_lines() -> None:
    document = yaml12.read("a:\n  b: 1\n  'b': 2\na: 3\n")

    assert document.duplicates == [(("a", "b"), 3, 2), (("a",), 4, 1)]


def test_the_same_key_in_two_items_of_a_list_is_no_duplicate() -> None:
    assert yaml12.read("[{a: 1}, {a: 2}]").duplicates == []


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        (
            "a: 1\nb: [1,\n",
            3,
            1,
            "while parsing a flow node from line 3, expected the node content, "
            "but found '<stream end>'",
        ),
        (
            "a:\n\tb: 1",
            2,
            1,
            "found character '\\t' that cannot start any token; indent with spaces, not tabs",
        ),
        ("a: b: c", 1, 5, "mapping values are not allowed here"),
        (
            "--- 1\n--- 2",
            2,
            1,
            "expected a single document in the stream from line 1, but found another document",
        ),
        ("a: 1\nb: \x01", 2, 4, "the character U+0001 is not allowed"),
        ("a: &x 1\nb: *x", 2, 4, "recipes do not use the alias *x: write the value out"),
        ("a: !!int '3'", 1, 4, "recipes do not use tags (!...): write the value without"),
        ("? [a]\n: 1", 1, 3, "recipes do not use a list or mapping as a key"),
        ("[" * 21, 1, 21, "recipes do not use more than 20 levels"),
        ("a: " + "9" * 101, 1, 4, "recipes do not use a number of 101 characters"),
        (
            r'"\UFFFFFFFF"',
            1,
            1,
            r"an escape (\x, \u or \U) names no character",
        ),
    ],
)
def test_what_cannot_be_read_has_a_place_and_a_reason(
    text: str, line: int, column: int, message: str
) -> None:
    with pytest.raises(YamlError) as caught:
        yaml12.read(text)

    assert str(caught.value) == message
    assert (caught.value.line, caught.value.column) == (line, column)


def test_aliases_that_expand_each_other_are_refused_at_once() -> None:
    """Expanded, these ten lines would hold a billion items."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]

    with pytest.raises(YamlError, match=r"the alias \*a0"):
        yaml12.read("\n".join(lines))


@pytest.mark.parametrize("text", AWKWARD_TEXTS)
def test_text_is_dumped_so_that_it_reads_back(text: str) -> None:
    value = {"key": text, "list": [text, text], "mapping": {"name": text}}

    assert yaml12.read(yaml12.dump(value)).value == value


@pytest.mark.parametrize("text", ["no", "1e-3", "12:00:00", "null", "0o17", ""])
def test_text_is_dumped_so_that_yaml_1_1_reads_it_too(text: str) -> None:
    assert yaml.safe_load(yaml12.dump({"key": text})) == {"key": text}


def test_every_pair_of_characters_that_mean_something_reads_back() -> None:
    alphabet = sorted(set("".join(AWKWARD_TEXTS)))
    pairs = ["".join(pair) for pair in product(alphabet, repeat=2)]

    assert yaml12.read(yaml12.dump(pairs)).value == pairs
    assert yaml12.read(yaml12.dump(dict.fromkeys(pairs, 0))).value == dict.fromkeys(pairs, 0)


def test_numbers_of_every_size_read_back_to_the_last_digit() -> None:
    numbers = [sign * 10.0**power / 3 for power in range(-300, 300) for sign in (1, -1)]

    assert yaml12.read(yaml12.dump(numbers)).value == numbers


def test_keys_keep_their_order_and_lists_stay_on_their_line() -> None:
    assert (
        yaml12.dump({"b": 1, "a": [1, "x"], "c": {}, "d": 1e-5})
        == "b: 1\na: [1, x]\nc: {}\nd: 1.0e-05\n"
    )
