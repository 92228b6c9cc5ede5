"""One nested dict told as its difference from another."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ["changes", "with_changes"]


def changes(changed: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Where a nested dict differs from another of the same keys: ``{"data.split_seed": 3}``.

    Args:
        whole: the dict that is told.
        base: what it is told from.
    """
    differences: dict[str, Any] = {}
    for key, value in changed.items():
        before = base[key]
        if (
            isinstance(value, Mapping)
            and isinstance(before, Mapping)
            and value.keys() == before.keys()
        ):
            differences |= {f"{key}.{inner}": v for inner, v in changes(value, before).items()}
        elif value != before:
            differences[key] = value
    return differences


def with_changes(base: Mapping[str, Any], differences: Mapping[str, Any]) -> dict[str, Any]:
    """The dict that :func:`changes` told.

    Raises:
        KeyError: a change at a place that ``base`` does not have.
    """
    changed = copy.deepcopy(dict(base))
    for path, value in differences.items():
        *outer, last = path.split(".")
        parent = changed
        for key in outer:
            parent = parent[key]
        if last not in parent:
            raise KeyError(path)
        parent[last] = value
    return changed
