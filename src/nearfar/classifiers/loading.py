"""One word for any classifier: a file, a name, a function, or the network itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from nearfar.classifiers.classifier import Classifier
from nearfar.classifiers.exported_files import from_onnx, from_program
from nearfar.classifiers.functions import from_callable, from_import, is_import
from nearfar.classifiers.hub_files import HUB, from_hub, is_hub_folder
from nearfar.classifiers.input_spec import Answers, InputOptions
from nearfar.classifiers.networks import from_checkpoint, from_name, from_network
from nearfar.classifiers.transformers_files import (
    PREFIX,
    from_transformers,
    is_transformers_folder,
)
from nearfar.errors import InputError

__all__ = ["Model", "load_classifier"]

_LOG = logging.getLogger(__name__)

Model = str | Path | nn.Module | Callable[[Tensor], Tensor] | Classifier
"""What :func:`load_classifier` takes."""


def load_classifier(
    model: Model,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    size: int | None = None,
    num_classes: int | None = None,
    answers: Answers | None = None,
    output: str | None = None,
    crop_pct: float | None = None,
) -> Classifier:
    """Opens a classifier of any make.

    ============================  ==================================================================
    ``runs/x/weights.safetensors``  what ``nearfar train`` or ``nearfar convert`` wrote
    ``x.pt2``                     a program of ``torch.export``
    ``x.onnx``                    an ONNX file, run by onnxruntime
    ``hub:OWNER/NAME``            what ``nearfar.push_to_hub`` put on the hub of Hugging Face; also
                                  ``hub:OWNER/NAME@REVISION``
    a folder                      what ``nearfar.save_pretrained`` wrote, or transformers'
                                  ``save_pretrained`` of an image classifier and its processor
    ``hf:OWNER/NAME``             an image classifier of transformers' on the hub of Hugging Face
                                  (``nearfar[transformers]``); also ``hf:OWNER/NAME@REVISION``
    ``NAME@FILE``                 a network by name with somebody's weights (``.safetensors``, or
                                  a pickle of tensors, of which nothing is run)
    ``NAME@pretrained``           with the weights that timm or torchvision publish, or that come with
                                  nearfar (:func:`nearfar.pretrained.list_pretrained`)
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
        num_classes: how many classes; default: what the file, the weights or the name say, or else
            what a few images tried show.
        answers: whether the model's numbers are ``logits`` or ``probabilities``; default: probabilities
            where each row for a few images sums to 1, or else logits. A model with one number an image
            tells two classes apart; where that number may be either, this is needed. Several labels at
            once (``multilabel``) are refused.
        output: name (or number) of the output with the classes' numbers, where a model has several;
            default: the one that fits ``num_classes``, that is called logits, or that alone is
            ``[B, K]``.
        crop_pct: which share of an image's side the canvas shows at scale 1, above 0; 1 shows all of it, so
            that images of the canvas's size are not resized. Default: what the file or the name says.

    Raises:
        InputError: nothing of that kind, a file that cannot be read or does not fit, answers that are
            none of a classifier or may be several things, or an argument that the file has settled
            already.
    """
    options = InputOptions(tuple(mean), tuple(std), size, num_classes, answers, output, crop_pct)
    if isinstance(model, Classifier):
        options.check_unset(model.name)
        return model
    opened = _opened(model, options)
    for sentence in (opened.input_spec.assumed, opened.answers_assumed):
        if sentence:
            _LOG.warning(sentence)
    return opened


def _opened(model: Model, options: InputOptions) -> Classifier:
    if isinstance(model, nn.Module):
        return from_network(model, type(model).__name__, options)
    if callable(model):
        return from_callable(model, getattr(model, "__name__", type(model).__name__), options)
    word = str(model)
    if word.startswith(PREFIX) or is_transformers_folder(Path(word)):
        options.check_unset(word)
        return from_transformers(word)
    if word.startswith(HUB) or is_hub_folder(Path(word)):
        options.check_unset(word)
        return from_hub(word)
    path, at, _ = word.partition("@")
    suffix = Path(word).suffix.lower()
    if (not at or Path(word).is_file()) and suffix in (".safetensors", ".pt2", ".onnx"):
        if suffix == ".safetensors":
            opened = from_checkpoint(Path(word))
            options.check_unset(word)
            return opened
        return (from_program if suffix == ".pt2" else from_onnx)(Path(word), options)
    if is_import(word):
        return from_import(word, options)
    if not at and Path(word).is_file():
        raise InputError(
            f"{word} is a file, but no .safetensors of nearfar's, .pt2 or .onnx; for weights alone name the "
            f"network too, as in resnet50@{word}"
        )
    return from_name(path or word, word[len(path) + 1 :] if at else None, options)
