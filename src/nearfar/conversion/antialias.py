"""``antialias``: what halves a map blurs it first."""

from __future__ import annotations

from functools import partial

from torch import nn

from nearfar.conversion.plan import PATCHES, Change, Left, Plan, chosen
from nearfar.conversion.spec import Conversion
from nearfar.conversion.taking_over import like
from nearfar.layers import AntialiasedConv2d, AntialiasedMaxPool2d
from nearfar.layers.antialiased import refused

__all__ = ["plan_antialias"]


def plan_antialias(network: nn.Module, conversion: Conversion) -> Plan:
    """Every chosen convolution and maximum pool with a stride.

    Args:
        network: any.
        conversion: of method ``antialias``.

    Raises:
        InputError: a pattern that fits no such layer.
    """
    assert conversion.layers is not None, "the spec has filled it in"
    changes, left = [], []
    for name in chosen(network, conversion.layers, (nn.Conv2d, nn.MaxPool2d)):
        layer = network.get_submodule(name)
        steps = layer.stride if isinstance(layer.stride, tuple) else (layer.stride,) * 2
        if set(steps) == {1}:
            continue  # nothing is left out there
        what = f"{type(layer).__name__}, stride {steps[0]}"
        why = _why_not(layer, conversion.chosen_layers)
        if why:
            left.append(Left(name, what, why))
        else:
            kind = type(layer).__name__
            after = f"the same, blurred by (¼, ½, ¼) before samples are left out ({kind})"
            changes.append(Change(name, what, after, partial(_antialiased)))
    return Plan(conversion, tuple(changes), tuple(left))


def _why_not(layer: nn.Module, asked_for: bool) -> str:
    if isinstance(layer, (AntialiasedConv2d, AntialiasedMaxPool2d)):
        return "it is antialiased already"
    if type(layer) not in (nn.Conv2d, nn.MaxPool2d):
        return f"{type(layer).__name__} computes in its own way, which would be lost"
    if isinstance(layer, nn.MaxPool2d):
        return (
            "it returns indices, which blurred maxima do not have" if layer.return_indices else ""
        )
    assert isinstance(layer, nn.Conv2d)
    if "weight" not in layer._parameters:
        return "its weight is computed from other tensors; remove the weight norm first"
    if layer.kernel_size == layer.stride and layer.kernel_size != (1, 1) and not asked_for:
        return PATCHES
    return refused(layer)


def _antialiased(old: nn.Module) -> nn.Module:
    if isinstance(old, nn.MaxPool2d):
        pool = AntialiasedMaxPool2d(
            old.kernel_size, old.stride, old.padding, old.dilation, ceil_mode=old.ceil_mode
        )
        return like(old, pool)
    assert isinstance(old, nn.Conv2d)
    layer = AntialiasedConv2d(
        old.in_channels,
        old.out_channels,
        old.kernel_size,
        old.stride,
        old.padding,
        groups=old.groups,
        bias=old.bias is not None,
        device="meta",
        dtype=old.weight.dtype,
    )
    return like(old, layer)
