"""One word for any classifier: a file, a name, a function, or the network itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from nearfar.classifiers.classifier import Classifier
from nearfar.classifiers.exported_files import from_onnx, from_program
from nearfar.classifiers.functions import from_callable, from_import, is_import
from nearfar.classifiers.hub_files import HUB, from_hub, is_hub_folder
from nearfar.classifiers.input_spec import refuse_settings
from nearfar.classifiers.networks import from_checkpoint, from_name, from_network
from nearfar.data import Normalisation
from nearfar.errors import InputError

__all__ = ["InputOptions", "Model", "load_classifier"]

_LOG = logging.getLogger(__name__)

Model = str | Path | nn.Module | Callable[[Tensor], Tensor] | Classifier
"""What :func:`load_classifier` takes."""


@dataclass(frozen=True)
class InputOptions:
    """What a model does not say about the images that it takes; see :func:`load_classifier`.

    Args:
        mean, std: of each channel, of values from 0 to 1: what images are normalised by.
        size: side of the canvas, in pixels.
        num_classes: how many classes it tells apart.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: int | None = None
    num_classes: int | None = None


def load_classifier(
    model: Model,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    size: int | None = None,
    num_classes: int | None = None,
) -> Classifier:
    """Opens a classifier of any make.

    ============================  ==================================================================
    ``runs/x/weights.safetensors``  what ``nearfar train`` or ``nearfar convert`` wrote
    ``x.pt2``                     a program of ``torch.export``
    ``x.onnx``                    an ONNX file, run by onnxruntime
    ``hub:OWNER/NAME``            what ``nearfar.push_to_hub`` put on the hub of Hugging Face; also
                                  ``hub:OWNER/NAME@REVISION``
    a folder                      what ``nearfar.save_pretrained`` wrote
    ``NAME@FILE``                 a network by name with somebody's weights (``.safetensors``, or
                                  a pickle of tensors, of which nothing is run)
    ``NAME@pretrained``           with the weights that timm or torchvision publish
    ``NAME``                      with random weights (seed 0)
    ``package.module:attribute``  a network or a function in Python
    an ``nn.Module``, a function  itself
    ============================  ==================================================================

    A NAME is one of ours or timm's; ``torchvision/NAME`` is one of torchvision's. An opened
    classifier is returned as it is.

    Args:
        model: one of these.
        mean, std: of the channels, of values from 0 to 1: what the network's input is normalised by.
            Default: what the file or the name says; a network of ours, a module without timm's
            ``pretrained_cfg`` and a function: not normalised.
        size: side of the canvas in pixels. Default: what the file or the name says; needed for a
            module or function that does not say.
        num_classes: how many answers; default: what the file, the weights or the name say, or else
            what one image tried shows.

    Raises:
        InputError: nothing of that kind, a file that cannot be read or does not fit, or an argument
            that the file has settled already.
    """
    if isinstance(model, Classifier):
        return _settled(model, model.name, mean, std, size, num_classes)
    opened = _opened(model, mean, std, size, num_classes)
    if opened.input_spec.assumed:
        _LOG.warning(opened.input_spec.assumed)
    return opened


def _opened(
    model: Model,
    mean: Sequence[float],
    std: Sequence[float],
    size: int | None,
    num_classes: int | None,
) -> Classifier:
    figures = _normalisation(mean, std)
    if size is not None and size < 1:
        raise InputError(f"size is a side in pixels, at least 1, got {size}")
    if isinstance(model, nn.Module):
        return from_network(model, type(model).__name__, figures, size, num_classes)
    if callable(model):
        return from_callable(model, _named(model), figures, size, num_classes)
    word = str(model)
    if word.startswith(HUB) or is_hub_folder(Path(word)):
        return _settled(from_hub(word), word, mean, std, size, num_classes)
    path, at, _ = word.partition("@")
    suffix = Path(word).suffix.lower()
    if (not at or Path(word).is_file()) and suffix in (".safetensors", ".pt2", ".onnx"):
        if suffix == ".safetensors":
            return _settled(from_checkpoint(Path(word)), word, mean, std, size, num_classes)
        open_file = from_program if suffix == ".pt2" else from_onnx
        return open_file(Path(word), figures, size, num_classes)
    if is_import(word):
        return from_import(word, figures, size, num_classes)
    if not at and Path(word).is_file():
        raise InputError(
            f"{word} is a file, but no .safetensors of nearfar's, .pt2 or .onnx; for weights alone name the "
            f"network too, as in resnet50@{word}"
        )
    return from_name(
        path or word, word[len(path) + 1 :] if at else None, figures, size, num_classes
    )


def _settled(
    opened: Classifier,
    word: str,
    mean: Sequence[float],
    std: Sequence[float],
    size: int | None,
    num_classes: int | None,
) -> Classifier:
    refuse_settings(word, mean or None, std or None, size, num_classes)
    return opened


def _normalisation(mean: Sequence[float], std: Sequence[float]) -> Normalisation | None:
    if not mean and not std:
        return None
    return Normalisation(tuple(mean), tuple(std))


def _named(function: object) -> str:
    return getattr(function, "__name__", type(function).__name__)
