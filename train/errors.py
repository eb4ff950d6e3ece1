"""The one exception for what the person who asked can mend."""


class RequestError(Exception):
    """The run cannot be done as asked: the text names the place and the remedy.

    The worker prints it without a traceback and exits with code 2; nobody tries again.
    """
