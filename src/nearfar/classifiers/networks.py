"""Classifiers from networks: given, by name with somebody's weights, or out of a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from nearfar.classifiers.answers import read_answers
from nearfar.classifiers.classifier import Classifier
from nearfar.classifiers.evaluation_transforms import of_timm, of_torchvision, official_weights
from nearfar.classifiers.input_spec import InputOptions, InputSpec, fills_canvas
from nearfar.data import Normalisation, Normalised, ScaleProtocol
from nearfar.errors import InputError
from nearfar.models import has_shipped_weights, is_ours
from nearfar.models.torchvision_nets import PREFIX as TORCHVISION
from nearfar.models.torchvision_nets import has_fixed_side, is_torchvision, trained_side
from nearfar.pretrained import pretrained_file
from nearfar.training import ModelSpec, load_checkpoint, make_network

__all__ = ["from_checkpoint", "from_name", "from_network"]

ProtocolAt = Callable[[int], ScaleProtocol]
#: Networks that, with published weights, change ImageNet's normalisation into their own inside.
_OWN_NORMALISATION = ("googlenet", "inception_v3")


def from_network(
    network: nn.Module,
    name: str,
    options: InputOptions,
    spec: ModelSpec | None = None,
    protocol: ScaleProtocol | None = None,
    assumed: str = "",
    protocol_at: ProtocolAt | None = None,
) -> Classifier:
    """A network as a classifier; not changed.

    Args:
        network: ``[B, C, H, W]`` → ``[B, K]``, or what ``options`` say.
        name: for tables.
        options: what the network does not say. Without mean and std its input is normalised as timm's
            ``pretrained_cfg`` says, or not at all (a network of ours is given its figures where it is
            trained); without a size the canvas is that of ``pretrained_cfg``.
        spec: what builds it.
        protocol: how images are laid on the canvas, where that is known better.
        assumed: what is not known of that.
        protocol_at: the same for other sides of the canvas, where that is known better.

    Raises:
        InputError: no size known, figures that do not fit the channels, or a network that answers
            otherwise.
    """
    cfg, figures, size = _published(network), options.normalisation(), options.size
    if (
        figures is None
        and cfg
        and (has_shipped_weights(cfg) or not is_ours(cfg.get("architecture")))
    ):
        figures = Normalisation(tuple(cfg["mean"]), tuple(cfg["std"]))
    if isinstance(network, Normalised) and figures is not None:
        raise InputError(f"{name} normalises its input itself; leave out mean and std")
    if protocol is None and cfg and not is_ours(cfg.get("architecture")):
        protocol_at = partial(of_timm, cfg)
    if protocol is None:
        itself = isinstance(network, Normalised)
        protocol, assumed = fills_canvas(size, name) if itself else _protocol(cfg, size, name)
    protocol = options.cropping(protocol)
    in_chans = _channels(network, cfg)
    if figures is not None and len(figures.mean) != in_chans:
        raise InputError(
            f"{name} takes images of {in_chans} channels, got mean and std of {len(figures.mean)}; give one "
            f"figure a channel"
        )
    form = read_answers(network, network, name, (in_chans, *protocol.canvas_size), options)
    whole = form.wrap(network)
    if figures is not None:
        first = next((p for p in network.parameters() if p.is_floating_point()), None)
        whole = Normalised(whole, figures)
        if first is not None:
            whole.to(first.device, first.dtype)
    any_size = not (cfg or {}).get("fixed_input_size", False)
    input_spec = InputSpec(name, in_chans, protocol, form.num_classes, None, any_size, assumed)
    return Classifier(
        *(input_spec, whole, whole, spec),
        answers_assumed=form.remark,
        protocol_at=None if protocol_at is None else partial(_cropped, protocol_at, options),
    )


def _cropped(protocol_at: ProtocolAt, options: InputOptions, side: int) -> ScaleProtocol:
    """The publisher's rule for a side, with the share of an image that the user asked for."""
    return options.cropping(protocol_at(side))


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


def from_name(name: str, weights: str | None, options: InputOptions) -> Classifier:
    """Builds a network by its name.

    Args:
        name: one of ours or timm's, or ``torchvision/NAME``.
        weights: a file, ``pretrained``, or ``None`` for random ones (seed 0).
        options: what it does not say. Without ``num_classes`` there are as many as the weights' classifier
            has, or as the network was made for.

    Raises:
        InputError: an unknown name, a file that does not fit, or weights that cannot be fetched.
    """
    shipped = pretrained_file(name) if weights == "pretrained" else None
    if shipped is not None:
        options.check_unset(f"{name}@{weights}")
        return from_checkpoint(shipped)
    figures, num_classes = options.normalisation(), options.num_classes
    spec = ModelSpec(name, weights=weights, mean=options.mean, std=options.std)
    if weights == "pretrained" and num_classes is not None:
        raise InputError(
            f"{name} answers with the classes that it was published with, and another number of them would "
            f"be a new classifier with random weights, got num_classes={num_classes}; leave it out"
        )
    bare = name.removeprefix(TORCHVISION)
    entry, certain = official_weights(bare, weights) if is_torchvision(name) else (None, False)
    if certain and bare in _OWN_NORMALISATION:
        # torchvision's builder does so where it fetches the weights itself.
        spec = dataclasses.replace(spec, options={"transform_input": True})
    side = options.size
    if entry is not None and has_fixed_side(bare):
        if side is None and weights is not None and not certain:
            side = trained_side(bare, Path(weights))
        side = side or entry.transforms().crop_size[0]
        spec = dataclasses.replace(spec, options={"image_size": side})
    with isolate_rng():
        torch.manual_seed(0)
        network = make_network(spec, num_classes)
    protocol, assumed, protocol_at = None, "", None
    if entry is not None:
        protocol_at = partial(_torchvision_at, entry)
        protocol, published = of_torchvision(entry, side)
        if figures is None:
            options = dataclasses.replace(options, mean=published.mean, std=published.std)
        if weights is not None and not certain:
            assumed = (
                f"{Path(weights).name} is none of the files that torchvision publishes for {bare}: it is "
                f"assumed that images are shown as to {entry}."
            )
    label = name if weights is None else f"{name}@{weights}"
    return from_network(network, label, options, spec, protocol, assumed, protocol_at)


def _torchvision_at(entry: Any, side: int) -> ScaleProtocol:
    return of_torchvision(entry, side)[0]


def from_checkpoint(path: Path) -> Classifier:
    """Opens a checkpoint.

    Raises:
        InputError: as :func:`nearfar.load_checkpoint` does.
    """
    checkpoint = load_checkpoint(path)
    spec = checkpoint.recipe.model
    # A conversion of weights alone knows how many classes there are, and not what they are called.
    names = checkpoint.class_names if checkpoint.record.get("classes_named", True) else None
    count = len(checkpoint.class_names)
    input_spec = InputSpec(
        spec.name, checkpoint.record["in_chans"], checkpoint.recipe.data.protocol, count, names
    )
    return Classifier(input_spec, checkpoint.model, checkpoint.model, spec, checkpoint)
