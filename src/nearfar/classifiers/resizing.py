"""A classifier at another side of its input, the share of it that content covers kept."""

from __future__ import annotations

import copy
import dataclasses
import warnings

import torch
from torch import nn

from nearfar.classifiers.answers import AsLogits
from nearfar.classifiers.classifier import Classifier
from nearfar.data import Normalised, ScaleProtocol
from nearfar.errors import InputError, first_line

__all__ = ["at_side", "patch_of"]


def at_side(classifier: Classifier, side: int) -> Classifier:
    """The same classifier, asked about images of another side.

    Weights are shared with the original, which is not changed. Of a network that timm can set to a side
    (``set_input_size``: vision transformers, Swin) a copy is set, its positions interpolated from the
    original's as timm does it; any other network is fed as it is. What images look like follows the
    publisher's rule for that side, or keeps the share of the canvas that the content covers.

    Args:
        classifier: of any make.
        side: of its square canvas, in pixels.

    Returns:
        The classifier; it was tried on one image of that side.

    Raises:
        InputError: it does not take that side, and why.
    """
    height, width = classifier.input_spec.protocol.canvas_size
    if (height, width) == (side, side):
        return classifier
    protocol = _protocol_at(classifier, side)
    module = classifier.module
    if module is None and not classifier.input_spec.any_size:
        raise InputError(
            f"{classifier.name} does not take images of {side}×{side}: the size of its input is fixed to "
            f"{height}×{width}; export it with open sizes, or audit the network itself"
        )
    input_spec = dataclasses.replace(classifier.input_spec, protocol=protocol)
    resized = dataclasses.replace(classifier, input_spec=input_spec)
    if module is not None and hasattr(_inner(module), "set_input_size"):
        module = _set_to(module, side, classifier.name)
        resized = dataclasses.replace(resized, function=module, module=module)
    resized.predict(torch.zeros(1, classifier.input_spec.in_chans, side, side))
    return resized


def patch_of(classifier: Classifier) -> int:
    """Of which number of pixels the side of a classifier's input must be a multiple; 1 where of any.

    Known of networks that timm can set to a side.
    """
    network = None if classifier.module is None else _inner(classifier.module)
    if network is None or not hasattr(network, "set_input_size"):
        return 1
    return max(_patches(network))


def _patches(network: nn.Module) -> tuple[int, int]:
    """Height and width of a network's patches; 1 where it has none."""
    size = getattr(getattr(network, "patch_embed", None), "patch_size", 1)
    return (size[0], size[1]) if isinstance(size, tuple) else (int(size), int(size))


def _protocol_at(classifier: Classifier, side: int) -> ScaleProtocol:
    """The publisher's preprocessing for a side, or ours in proportion."""
    if classifier.protocol_at is not None:
        return classifier.protocol_at(side)
    protocol = classifier.input_spec.protocol
    height, width = protocol.canvas_size
    if height != width:
        raise InputError(
            f"{classifier.name} takes images of {height}×{width}, and has no one side to change; audit "
            f"another axis"
        )
    content = tuple(max(1, round(c * side / height)) for c in protocol.content_size)
    square = content[0] if content[0] == content[1] else (content[0], content[1])
    return dataclasses.replace(protocol, canvas=side, content=square)


def _inner(module: nn.Module) -> nn.Module:
    """The network itself, within what normalises its input and reads its answers."""
    while isinstance(module, Normalised | AsLogits):
        module = module.network
    return module


def _set_to(module: nn.Module, side: int, name: str) -> nn.Module:
    """A copy of a network that timm has set to a side; parameters that need no change are shared."""
    patches = _patches(_inner(module))
    if any(side % p for p in patches):
        p = max(patches)
        raise InputError(
            f"{name} does not take images of {side}×{side}: its patches are {patches[0]}×{patches[1]} "
            f"pixels, so that the side must be a multiple of {p}, such as {max(1, side // p) * p} or "
            f"{(side // p + 1) * p}"
        )
    shared = {id(parameter): parameter for parameter in module.parameters()}
    resized = copy.deepcopy(module, shared)  # what the memo holds is not copied
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # timm's interpolation of Swin's tables draws warnings of torch's that nobody can mend here.
            warnings.simplefilter("ignore", UserWarning)
            _inner(resized).set_input_size(img_size=(side, side))  # type: ignore[operator]
    except Exception as cause:  # whatever a network of timm's trips over
        raise InputError(
            f"{name} does not take images of {side}×{side}: {first_line(cause)}; take another side"
        ) from cause
    return resized
