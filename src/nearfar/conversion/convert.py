"""Plan and apply: a network becomes its scale-aware twin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from nearfar.conversion.layerwise import LayerMethod
from nearfar.conversion.method import ConversionMethod, Plan, as_method, list_methods, method_class
from nearfar.conversion.trial import tried
from nearfar.errors import InputError

__all__ = ["convert_network", "plan_conversion"]

Conversion = ConversionMethod | str | Mapping[str, Any]


def plan_conversion(network: nn.Module, conversion: Conversion, side: int | None = None) -> Plan:
    """What a conversion would change; nothing is changed.

    Args:
        network: a classifier.
        conversion: a method with its settings, its name, or its record (``{"method": name, …}``).
        side: of the images, in pixels; needed for a ``pyramid-ensemble`` with ``window='fixed'``.

    Raises:
        InputError: the network cannot be converted that way; the message names the ways that can.
    """
    method = as_method(conversion)
    try:
        plan = method.plan(network, side)
        if plan.changes:
            return plan
        why = f"{type(network).__name__} has no layer that method {method.name!r} can change"
        why += "".join(f"; {x.name} ({x.what}) stays: {x.why}" for x in plan.left[:3])
    except InputError as cause:
        if isinstance(method, LayerMethod) and method.names_layers:
            raise
        why = str(cause)
    others = [method_class(name) for name in list_methods() if name != method.name]
    usable = [words for other in others if (words := other.usable_as(network, side))]
    hint = f"; methods that can: {', '.join(usable)}" if usable else ""
    raise InputError(f"{why}{hint}")


def convert_network(
    network: nn.Module, conversion: Conversion, side: int | None = None, *, trial: bool = True
) -> tuple[nn.Module, Plan]:
    """A copy of a network, converted; with the plan that was followed.

    Weights, types of number, device, modes and which modules are shared stay what they are. Original and
    copy are then run once on random images, to see that the changed layers run and the logits move where
    they must.

    Args:
        network, conversion, side: as in :func:`plan_conversion`; the network is not changed.
        trial: ``False`` leaves out that run, such as for a network whose weights are still to come.

    Raises:
        InputError: as :func:`plan_conversion` does; a network that cannot be copied; or a conversion without
            effect, because the network does not call the layers changed.
    """
    plan = plan_conversion(network, conversion, side)
    converted = plan.conversion.apply(network, plan)
    return converted, tried(network, converted, plan, side) if trial else plan
