"""The one class of error that nearfar raises for bad input."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """Something the caller gave cannot be used.

    The message says what was expected, what came, and how to mend it. The command line prints it
    as one line and ends with exit status 2. Every other exception is a fault of nearfar itself.
    """
