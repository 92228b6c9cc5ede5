"""Text from files and other people, harmless on a terminal."""

from __future__ import annotations

import logging
import re

__all__ = ["VisibleFormatter", "visible"]

#: Control characters but the tabulator and the end of a line, and those that turn the direction of text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Text with its control characters written out, such as ``\\x1b``: none of them does anything."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


class VisibleFormatter(logging.Formatter):
    """Log messages as they are, but :func:`visible`."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, without codes for terminals."""
        return visible(super().format(record))
