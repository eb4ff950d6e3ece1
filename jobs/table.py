"""Tables for people: as wide as the terminal, and in full where nobody is at one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from rich.console import Console
from rich.text import Text

GAP = "  "
STATE_STYLES = {
    "finished": "green",
    "running": "cyan",
    "ending": "cyan",
    "failed": "red",
    "lost": "red",
    "unknown": "yellow",
}


class PipedConsole(Console):
    """A console that tells its caller when the reader (`| head`) has gone; rich's own exits."""

    def on_broken_pipe(self) -> NoReturn:
        """Called where stdout is a pipe that nobody reads.

        Raises:
            BrokenPipeError: always.
        """
        raise BrokenPipeError


@dataclass(frozen=True)
class Column:
    """One column: its title and a cell for each line below it."""

    title: str
    cells: list[str]
    justify: Callable[[str, int], str] = field(default=str.ljust)

    @property
    def width(self) -> int:
        """Of the widest cell, in characters."""
        return max(map(len, [self.title, *self.cells]))

    def line(self, number: int) -> str:
        """The title, at 0, or a cell, filled up to the width."""
        return self.justify(self.heading if number == 0 else self.cells[number - 1], self.width)

    @property
    def heading(self) -> str:
        """The title in capitals, but for a recipe's key, which stays as it is typed."""
        return self.title if "." in self.title else self.title.upper()


def print_table(columns: Sequence[Column], console: Console, width: int | None) -> None:
    """Print a table; what does not fit beside the first column follows below, beside it again."""
    for number, block in enumerate(blocks(columns, width)):
        if number:
            console.print()
        for line in range(1 + len(columns[0].cells)):
            cells = [
                Text(column.line(line), "bold" if line == 0 else _style(column, line))
                for column in block
            ]
            text = Text(GAP).join(cells)
            text.rstrip()
            console.print(text, soft_wrap=True)


def blocks(columns: Sequence[Column], width: int | None) -> list[list[Column]]:
    """The columns in as few tables as fit `width`, each beginning with the first column."""
    first, *others = columns
    found = [[first]]
    for column in others:
        used = sum(len(GAP) + each.width for each in found[-1])
        if width is not None and used + column.width > width and len(found[-1]) > 1:
            found.append([first])
        found[-1].append(column)
    return found


def _style(column: Column, line: int) -> str:
    return STATE_STYLES.get(column.cells[line - 1].partition(" ")[0], "")
