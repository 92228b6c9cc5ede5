"""The network that a ModelSpec names."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from nearfar.conversion import convert_network
from nearfar.models import create_model, load_weights, read_weights
from nearfar.training.specs import ModelSpec

__all__ = ["make_network"]


def make_network(
    spec: ModelSpec,
    num_classes: int | None = None,
    in_chans: int | None = None,
    *,
    side: int | None = None,
    weights: bool = True,
) -> nn.Module:
    """Builds a network, gives it its weights, and converts it, as its spec says.

    Args:
        spec: which network. Where it names no weights, they are drawn with torch's generator.
        num_classes: default: what the classifier in the file of weights has, or what the network was
            made for.
        in_chans: channels of the images; default: what the network was made for.
        side: of the images, in pixels, for conversions that need it.
        weights: ``False`` leaves the spec's weights aside: others will be loaded.

    Raises:
        InputError: an unknown name, weights that cannot be fetched or do not fit, or a conversion that
            the network does not bear.
    """
    options = dict(spec.options)
    wanted = spec.weights if weights else None
    if wanted == "pretrained":
        options["pretrained"] = True
    elif wanted is not None and num_classes is None:
        num_classes = _classes_in(spec, Path(wanted))
    network = create_model(spec.name, num_classes=num_classes, in_chans=in_chans, **options)
    if wanted not in (None, "pretrained"):
        load_weights(network, Path(str(wanted)))
    if spec.convert is None:
        return network
    return convert_network(network, spec.convert, side)[0]


def _classes_in(spec: ModelSpec, file: Path) -> int | None:
    """How many classes the classifier in a file of weights has; ``None`` where that cannot be told."""
    with isolate_rng(), torch.device("meta"):
        try:
            network = create_model(spec.name, **spec.options)
        except (NotImplementedError, RuntimeError):  # some networks compute while they are built
            return None
    cfg = getattr(network, "pretrained_cfg", None) or {}
    named = (cfg if isinstance(cfg, dict) else cfg.to_dict()).get("classifier")
    if not isinstance(named, str):
        return None
    weight = read_weights(network, file).get(f"{named}.weight")
    return None if weight is None else int(weight.shape[0])
