"""``pyramid-ensemble``: the whole network at every scale."""

from __future__ import annotations

from functools import partial

from torch import nn

from nearfar.conversion.plan import Change, Plan
from nearfar.conversion.spec import Conversion
from nearfar.errors import InputError
from nearfar.models import HierarchicalNet

__all__ = ["plan_ensemble"]


def plan_ensemble(network: nn.Module, conversion: Conversion, side: int | None = None) -> Plan:
    """The network over a pyramid of the image.

    Args:
        network: a classifier.
        conversion: of method ``pyramid-ensemble``.
        side: of the canvas, in pixels; needed for ``window='fixed'``.

    Raises:
        InputError: ``window='fixed'`` without ``side``, or a network over a pyramid already.
    """
    if isinstance(network, HierarchicalNet):
        raise InputError(
            f"the network is over a pyramid of scales {network.scales} already; convert the one inside (net)"
        )
    if conversion.window == "fixed" and side is None:
        raise InputError("window='fixed' needs to know the size of the images; give size")
    cfg = getattr(network, "pretrained_cfg", None) or {}
    fixed = (cfg if isinstance(cfg, dict) else cfg.to_dict()).get("fixed_input_size")
    if fixed and conversion.window != "fixed":
        raise InputError(
            f"{type(network).__name__} takes images of one size only; give window='fixed', with which it "
            f"meets every scale through a window of that size"
        )
    shown = {"image": "no level larger than the image", "all": "all of the image at each"}
    how = shown.get(conversion.window or "", f"each through a window of {side} pixels")
    assert conversion.scales is not None, "the spec has filled it in"
    scales = ", ".join(f"{s:g}" for s in conversion.scales)
    change = Change(
        "",
        type(network).__name__,
        f"the same at scales {scales} ({how}), combined by {conversion.vote}",
        partial(_over_a_pyramid, conversion=conversion, side=side),
    )
    return Plan(conversion, (change,))


def _over_a_pyramid(old: nn.Module, conversion: Conversion, side: int | None) -> nn.Module:
    assert conversion.scales is not None, "the spec has filled it in"
    assert conversion.vote is not None, "the spec has filled it in"
    window = {"image": "image", "all": None, "fixed": side}[conversion.window or "image"]
    whole = HierarchicalNet(old, conversion.scales, conversion.vote, window)  # type: ignore[arg-type]
    first = next((p for p in old.parameters() if p.is_floating_point()), None)
    if first is not None:
        whole.to(device=first.device, dtype=first.dtype)  # the learnt vote, if there is one
    whole.training = old.training
    return whole
