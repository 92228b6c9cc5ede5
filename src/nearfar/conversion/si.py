"""``si``: convolutions become SI-layers."""

from __future__ import annotations

from functools import partial
from typing import cast

from torch import nn

from nearfar.conversion.plan import PATCHES, Change, Left, Plan, chosen
from nearfar.conversion.spec import Conversion
from nearfar.conversion.taking_over import like
from nearfar.grid import Padding
from nearfar.layers import SIConv2d

__all__ = ["plan_si"]


def plan_si(network: nn.Module, conversion: Conversion) -> Plan:
    """Every chosen convolution that an SI-layer can stand for.

    Args:
        network: any.
        conversion: of method ``si``.

    Raises:
        InputError: a pattern that fits no convolution.
    """
    assert conversion.layers is not None, "the spec has filled it in"
    assert conversion.scales is not None, "the spec has filled it in"
    changes, left = [], []
    for name in chosen(network, conversion.layers, (nn.Conv2d,)):
        conv = cast(nn.Conv2d, network.get_submodule(name))
        why = _why_not(conv, conversion.chosen_layers)
        if why:
            left.append(Left(name, _short(conv), why))
        else:
            after = f"SI-layer over {', '.join(f'{s:g}' for s in conversion.scales)}"
            make = partial(_as_si, scales=conversion.scales)
            changes.append(Change(name, _short(conv), after, make))
    return Plan(conversion, tuple(changes), tuple(left))


def _why_not(conv: nn.Conv2d, asked_for: bool) -> str:
    """Why a convolution stays one; empty where it need not."""
    if isinstance(conv, SIConv2d):
        return "it is an SI-layer already"
    if type(conv) is not nn.Conv2d:
        return f"{type(conv).__name__} computes in its own way, which an SI-layer would lose"
    if "weight" not in conv._parameters:
        return "its weight is computed from other tensors; remove the weight norm first"
    if asked_for:
        return ""
    if conv.kernel_size == (1, 1):
        return "its filters are single points, which look the same at every scale"
    if conv.kernel_size == conv.stride:
        return PATCHES
    return ""


def _short(conv: nn.Conv2d) -> str:
    rows, columns = conv.kernel_size
    step = f", stride {conv.stride[0]}" if conv.stride != (1, 1) else ""
    return f"{type(conv).__name__} {rows}×{columns}{step}"


def _as_si(old: nn.Module, scales: tuple[float, ...]) -> nn.Module:
    assert isinstance(old, nn.Conv2d)
    layer = SIConv2d(
        old.in_channels,
        old.out_channels,
        old.kernel_size,
        old.stride,
        cast(Padding, old.padding),
        old.dilation,
        old.groups,
        old.bias is not None,
        old.padding_mode,
        device="meta",
        dtype=old.weight.dtype,
        scales=scales,
    )
    return like(old, layer)
