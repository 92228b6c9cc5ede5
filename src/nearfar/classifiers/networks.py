"""Classifiers from networks that are there already."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nearfar.classifiers.classifier import Classifier, count_classes
from nearfar.classifiers.evaluation_transforms import of_timm
from nearfar.classifiers.input_spec import InputSpec, fills_canvas
from nearfar.data import Normalisation, Normalised, ScaleProtocol
from nearfar.errors import InputError
from nearfar.models import is_ours
from nearfar.training import ModelSpec

__all__ = ["from_network"]


def from_network(
    network: nn.Module,
    name: str,
    figures: Normalisation | None = None,
    size: int | None = None,
    num_classes: int | None = None,
    spec: ModelSpec | None = None,
    protocol: ScaleProtocol | None = None,
    assumed: str = "",
) -> Classifier:
    """A network as a classifier; not changed.

    Args:
        network: ``[B, C, H, W]`` → ``[B, K]``.
        name: for tables.
        figures: what its input is normalised by; default: what timm's ``pretrained_cfg`` says, nothing for
            networks of ours, which are given their figures where they are trained.
        size: of the canvas; default: what ``pretrained_cfg`` says.
        num_classes: default: found by trying.
        spec: what builds it.
        protocol: how images are laid on the canvas, where that is known better.
        assumed: what is not known of that.

    Raises:
        InputError: no size known, figures that do not fit the channels, or a network that answers
            otherwise.
    """
    cfg = _published(network)
    if figures is None and cfg and not is_ours(cfg.get("architecture")):
        figures = Normalisation(tuple(cfg["mean"]), tuple(cfg["std"]))
    if isinstance(network, Normalised) and figures is not None:
        raise InputError(f"{name} normalises its input itself; leave out mean and std")
    if protocol is None:
        itself = isinstance(network, Normalised)
        protocol, assumed = fills_canvas(size, name) if itself else _protocol(cfg, size, name)
    in_chans = _channels(network, cfg)
    if figures is not None and len(figures.mean) != in_chans:
        raise InputError(
            f"{name} takes images of {in_chans} channels, got mean and std of {len(figures.mean)}; give one "
            f"figure a channel"
        )
    whole = network if figures is None else Normalised(network, figures).to(_device(network))
    count = num_classes or count_classes(whole, whole, name, in_chans, protocol.canvas_size)
    any_size = not (cfg or {}).get("fixed_input_size", False)
    input_spec = InputSpec(name, in_chans, protocol, count, None, any_size, assumed)
    return Classifier(input_spec, whole, whole, spec)


def _published(network: nn.Module) -> dict[str, Any] | None:
    """timm's account of a network, if it has one."""
    cfg = getattr(network, "pretrained_cfg", None)
    if cfg is None or isinstance(cfg, dict):
        return cfg or None
    published: dict[str, Any] = cfg.to_dict()
    return published


def _protocol(cfg: dict[str, Any] | None, size: int | None, name: str) -> tuple[ScaleProtocol, str]:
    """How images are shown to a network at scale 1, and what had to be assumed."""
    if cfg is None:
        return fills_canvas(size, name)
    if is_ours(cfg.get("architecture")):
        side = size or min(cfg["input_size"][1:])
        return ScaleProtocol(canvas=side, content=side), ""
    return of_timm(cfg, size), ""


def _channels(network: nn.Module, cfg: dict[str, Any] | None) -> int:
    """Channels of the image: the first convolution's, or what the network says of itself."""
    in_chans = getattr(network, "in_chans", None)
    if isinstance(in_chans, int):
        return in_chans
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return int(cfg["input_size"][0]) if cfg else 3


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))
