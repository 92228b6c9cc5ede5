"""The one class of error that nearfar raises for bad input, and how it quotes other errors."""

from __future__ import annotations

__all__ = ["InputError", "first_line"]


class InputError(ValueError):
    """Something the caller gave cannot be used.

    The message says what was expected, what came, and how to mend it. The command line prints it
    as one line and ends with exit status 2. Every other exception is a fault of nearfar itself.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's text, to quote it within a message; its class where there is no text."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
