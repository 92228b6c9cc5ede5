"""The one class of error that nearfar raises for bad input, and how it quotes other errors."""

from __future__ import annotations

import re

__all__ = ["InputError", "first_line"]

#: Control sequences that begin with escape: colours, cursor movements.
_TERMINAL_CODES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-_])")


class InputError(ValueError):
    """Something the caller gave cannot be used.

    The message says what was expected, what came, and how to mend it. The command line prints it
    as one line and ends with exit status 2. Every other exception is a fault of nearfar itself.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's text, to quote it within a message; its class where there is no text.

    Without colours and other codes for terminals, and without a full stop at its end.
    """
    lines = [
        line.strip() for line in _TERMINAL_CODES.sub("", str(error)).splitlines() if line.strip()
    ]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
