"""Whether data are those that a run began with."""

from __future__ import annotations

from typing import Any

__all__ = ["what_changed"]


def what_changed(then: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """In words; empty where nothing did.

    Args:
        then: a fingerprint (:meth:`nearfar.data.ScaleData.fingerprint`) that was kept, or ``None`` where
            an older nearfar kept none: then nothing is known to have changed.
        now: that of the data as they are.
    """
    if then is None or then == now:
        return ""
    if then["images"] != now["images"]:
        return f"{then['images']} images then, {now['images']} now"
    return f"{now['images']} images then and now, with other labels, in another order or parted otherwise"
