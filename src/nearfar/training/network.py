"""The network that a ModelSpec names."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

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
        in_chans: channels of the images; default: what the first convolution in the file of weights
            takes, or what the network was made for.
        side: of the images, in pixels, for conversions that need it.
        weights: ``False`` leaves the spec's weights aside: others will be loaded.

    Raises:
        InputError: an unknown name, weights that cannot be fetched or do not fit, or a conversion that
            the network does not bear.
    """
    options = dict(spec.options)
    source = spec.weights if weights else None
    if source == "pretrained":
        options["pretrained"] = True
    elif source is not None and (num_classes is None or in_chans is None):
        classes, channels = _sizes_in(spec, Path(source))
        num_classes, in_chans = num_classes or classes, in_chans or channels
    network = create_model(spec.name, num_classes=num_classes, in_chans=in_chans, **options)
    if source not in (None, "pretrained"):
        load_weights(network, Path(str(source)))
    if spec.convert is None:
        return network
    return convert_network(network, spec.convert, side, trial=weights)[0]


def _sizes_in(spec: ModelSpec, file: Path) -> tuple[int | None, int | None]:
    """Classes and channels that a file of weights was trained with; ``None`` where that cannot be told."""
    with isolate_rng(), torch.device("meta"):
        try:
            network = create_model(spec.name, **spec.options)
        except (NotImplementedError, RuntimeError):  # some networks compute while they are built
            return None, None
    cfg = getattr(network, "pretrained_cfg", None) or {}
    layers = cfg if isinstance(cfg, dict) else cfg.to_dict()
    state = read_weights(network, file)
    # torchvision's networks do not say which layer is the classifier: it is the last.
    classifier = _weight(state, layers.get("classifier") if layers else _last_layer(network))
    first_conv = _weight(state, layers.get("first_conv"))
    classes = None if classifier is None or not classifier.dim() else int(classifier.shape[0])
    channels = None if first_conv is None or first_conv.dim() != 4 else int(first_conv.shape[1])
    return classes, channels


def _last_layer(network: nn.Module) -> str | None:
    """Name of the last layer with weights of its own for each answer."""
    names = [n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return names[-1] if names else None


def _weight(state: dict[str, Tensor], names: str | tuple[str, ...] | None) -> Tensor | None:
    """The weight of a layer; of several alike, such as those of towers, the first's."""
    return state.get(f"{names if isinstance(names, str | None) else names[0]}.weight")
