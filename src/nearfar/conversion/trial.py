"""Networks tried on random images: which sizes they take, and whether a conversion had any effect."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.conversion.method import Plan
from nearfar.errors import InputError, first_line
from nearfar.models.modes import evaluating

__all__ = ["published_side", "size_fault", "tried"]

#: Tried in turn where nobody says how large the images are.
_SIDES = (64, 32, 28, 224)
_NAMED = 5


def published_side(network: nn.Module) -> int | None:
    """The side of the images that a network of timm's or torchvision's says it takes."""
    cfg: Any = getattr(network, "pretrained_cfg", None)
    if cfg:
        return int((cfg if isinstance(cfg, dict) else cfg.to_dict())["input_size"][-1])
    side = getattr(network, "image_size", None)
    return side if isinstance(side, int) and side > 0 else None


def size_fault(network: nn.Module, side: int, other: int) -> str:
    """What a network says to images of another size than its own.

    Args:
        network: in any mode.
        side: of images that it takes, in pixels.
        other: of those to try.

    Returns:
        The first line of the error; empty where both sizes are taken, or neither is.
    """
    if not isinstance(_logits(network, _images(network, side)), Exception):
        fault = _logits(network, _images(network, other))
        if isinstance(fault, Exception):
            return first_line(fault)
    return ""


def tried(network: nn.Module, converted: nn.Module, plan: Plan, side: int | None) -> Plan:
    """Runs a converted network once, to see whether its changed layers have any effect.

    A network may read a layer's weight without calling the layer (``F.conv2d(x, self.conv.weight)``), or
    hold its layers in a plain list: then the new layers are there, and compute nothing.

    Args:
        network: the original.
        converted: what became of it.
        plan: what was changed.
        side: of the images, in pixels; default: the first of some common sizes that the original takes.

    Returns:
        The plan, with the names of changed layers that did not run, and a note where logits should have
        moved and did not. As it is where the original takes no image of these sizes.

    Raises:
        InputError: no changed layer ran, or the converted network fails where the original does not.
    """
    if any(p.device.type == "meta" for p in network.parameters()):
        return plan
    canvas = side or published_side(network)
    for guess in (canvas,) if canvas else _SIDES:
        images = _images(network, guess)
        before = _logits(network, images)
        if not isinstance(before, Exception):
            break
    else:
        return plan
    ran: set[str] = set()
    with _recorded(converted, [c.name for c in plan.changes], ran):
        after = _logits(converted, images)
    if isinstance(after, Exception):
        if not canvas:
            return plan
        raise InputError(
            f"the converted network does not take images of {images.shape[-2]}×{images.shape[-1]}, which the "
            f"original takes: {first_line(after)}; convert fewer layers, or choose other scales"
        ) from after
    return _judged(plan, ran, before, after)


def _judged(plan: Plan, ran: set[str], before: Any, after: Any) -> Plan:
    idle = tuple(c.name for c in plan.changes if c.name not in ran)
    named = ", ".join(idle[:_NAMED]) + (" …" if len(idle) > _NAMED else "")
    if len(idle) == len(plan.changes):
        raise InputError(
            f"the conversion would change nothing: the network computes its logits without calling {named}; "
            f"it reads the weights itself, or holds the layers in a plain list; call the layers in forward, "
            f"and hold them in an nn.ModuleList"
        )
    notes = plan.notes
    if idle:
        count = "1 changed layer" if len(idle) == 1 else f"{len(idle)} changed layers"
        notes += (
            f"{count} did not run on a trial image ({named}): the network reads the weights without calling "
            f"the layer, or needs it in training alone.",
        )
    if plan.conversion.moves_logits and isinstance(before, Tensor) and torch.equal(before, after):
        notes += (
            "On trial images the converted network answers exactly as the original: what the changed layers "
            "compute does not reach the logits.",
        )
    return dataclasses.replace(plan, notes=notes, idle=idle)


@contextmanager
def _recorded(network: nn.Module, names: list[str], ran: set[str]) -> Iterator[None]:
    """Notes which modules run, whether they are called or their ``forward`` is."""

    def recording(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            ran.add(name)
            return forward(*args, **kwargs)

        return run

    modules = {name: network.get_submodule(name) for name in names}
    replaced = {name: vars(module).get("forward") for name, module in modules.items()}
    try:
        for name, module in modules.items():
            module.forward = recording(name, module.forward)
        yield
    finally:
        for name, module in modules.items():
            if replaced[name] is None:
                vars(module).pop("forward", None)
            else:
                module.forward = replaced[name]  # type: ignore[assignment]


def _images(network: nn.Module, side: int) -> Tensor:
    """Two random images of values from 0 to 1, on the network's device and of its type of number."""
    first = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    noise = torch.rand(
        2, _channels(network), side, side, generator=torch.Generator().manual_seed(0)
    )
    return noise.to(first.device, first.dtype)


def _channels(network: nn.Module) -> int:
    channels = getattr(network, "in_chans", None)
    if isinstance(channels, int):
        return channels
    convolutions = (m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d))
    return next(convolutions, 3)


def _logits(network: nn.Module, images: Tensor) -> Any:
    """What a network answers, or the error that it raises."""
    try:
        with torch.no_grad(), evaluating(network):
            return network(images)
    except Exception as fault:  # a network of any make may raise anything
        return fault
