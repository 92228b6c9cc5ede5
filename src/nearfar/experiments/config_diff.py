"""One nested dict told as its difference from another."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ["changes", "with_changes"]


def changes(whole: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Where a nested dict differs from another of the same keys: ``{"data.split_seed": 3}``.

    Args:
        whole: the dict that is told.
        base: what it is told from.
    """
    found: dict[str, Any] = {}
    for key, value in whole.items():
        before = base[key]
        if (
            isinstance(value, Mapping)
            and isinstance(before, Mapping)
            and value.keys() == before.keys()
        ):
            found |= {f"{key}.{inner}": v for inner, v in changes(value, before).items()}
        elif value != before:
            found[key] = value
    return found


def with_changes(base: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The dict that :func:`changes` told.

    Raises:
        KeyError: a change at a place that ``base`` does not have.
    """
    whole = copy.deepcopy(dict(base))
    for path, value in told.items():
        *outer, last = path.split(".")
        place = whole
        for key in outer:
            place = place[key]
        if last not in place:
            raise KeyError(path)
        place[last] = value
    return whole
