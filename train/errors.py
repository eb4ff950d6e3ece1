"""Exceptions for what somebody outside the program can mend."""


class RequestError(Exception):
    """The run cannot be done as asked: the text names the place and the remedy.

    The worker prints it without a traceback and exits with code 2; nobody tries again.
    """


class UnfitNodeError(Exception):
    """This node is not what the run was given: the text says in what.

    The worker prints it without a traceback and exits with code 76; another node may do.
    """


def printable(text: object, length: int = 100) -> str:
    """`text` of a file's choice as a message may show it: cut, and without control characters."""
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)[:length]
    )


def first_line(error: Exception) -> str:
    """The first line of another library's exception, printable; its name where it has none."""
    line = next(iter(str(error).splitlines()), "")
    return printable(line, 200) or type(error).__name__
