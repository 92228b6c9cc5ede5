"""Plan and apply: a network becomes its scale-aware twin."""

from __future__ import annotations

import copy
from typing import get_args

from torch import nn

from nearfar.conversion.antialias import plan_antialias
from nearfar.conversion.ensemble import plan_ensemble
from nearfar.conversion.plan import Plan, replaced
from nearfar.conversion.si import plan_si
from nearfar.conversion.spec import Conversion, Method
from nearfar.conversion.weight_shared import plan_wsms
from nearfar.errors import InputError

__all__ = ["convert_network", "plan_conversion"]


def plan_conversion(network: nn.Module, conversion: Conversion, side: int | None = None) -> Plan:
    """What a conversion would change; nothing is changed.

    Args:
        network: a classifier.
        conversion: which way.
        side: of the images, in pixels; needed for a ``pyramid-ensemble`` with ``window='fixed'``.

    Raises:
        InputError: the network cannot be converted that way; the message names the ways that can.
    """
    why = ""
    try:
        plan = _plan(network, conversion, side)
        if plan.changes:
            return plan
        why = f"{type(network).__name__} has no layer that method {conversion.method!r} can change"
        if plan.left:
            why += "".join(f"; {x.name} ({x.what}) stays: {x.why}" for x in plan.left[:3])
    except InputError as cause:
        if conversion.chosen_layers:
            raise
        why = str(cause)
    others = [m for m in get_args(Method) if m != conversion.method and _can(network, m)]
    if not others and conversion.method != "pyramid-ensemble":
        others = ["pyramid-ensemble with window='fixed'"]
    hint = f"; methods that can: {', '.join(others)}" if others else ""
    raise InputError(f"{why}{hint}")


def convert_network(
    network: nn.Module, conversion: Conversion, side: int | None = None
) -> tuple[nn.Module, Plan]:
    """A copy of a network, converted; with the plan that was followed.

    Weights, types of number, device, modes and which modules are shared stay what they are.

    Args:
        network, conversion, side: as in :func:`plan_conversion`; the network is not changed.

    Raises:
        InputError: as :func:`plan_conversion` does.
    """
    plan = plan_conversion(network, conversion, side)
    return replaced(copy.deepcopy(network), plan.changes), plan


def _plan(network: nn.Module, conversion: Conversion, side: int | None) -> Plan:
    if conversion.method == "si":
        return plan_si(network, conversion)
    if conversion.method == "antialias":
        return plan_antialias(network, conversion)
    if conversion.method == "wsms":
        return plan_wsms(network, conversion)
    return plan_ensemble(network, conversion, side)


def _can(network: nn.Module, method: Method) -> bool:
    """Whether a method can be used on a network."""
    try:
        return bool(_plan(network, Conversion(method), None).changes)
    except InputError:
        return False
