"""Classifiers from Python: ``package.module:attribute``."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from torch import nn

from nearfar.classifiers.answers import read_answers
from nearfar.classifiers.classifier import Classifier, LogitsFunction
from nearfar.classifiers.input_spec import InputOptions, InputSpec, fills_canvas
from nearfar.classifiers.networks import from_network
from nearfar.data import Normalised
from nearfar.errors import InputError

__all__ = ["Called", "from_callable", "from_import", "is_import"]

_IMPORT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_import(word: str) -> bool:
    """Whether a word has the form ``package.module:attribute``."""
    return _IMPORT.fullmatch(word) is not None


def from_import(word: str, options: InputOptions) -> Classifier:
    """Imports a network or a function and opens it; the current folder is looked in first.

    Raises:
        InputError: it cannot be imported, or is neither.
    """
    module, _, attribute = word.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        loaded: Any = importlib.import_module(module)
        for part in attribute.split("."):
            loaded = getattr(loaded, part)
    except Exception as cause:  # whatever a user's module trips over
        raise InputError(
            f"{word} cannot be imported: {cause}; give package.module:attribute, from the current folder or "
            f"an installed package"
        ) from cause
    finally:
        sys.path.remove(folder)
    if isinstance(loaded, nn.Module):
        return from_network(loaded, attribute, options)
    if isinstance(loaded, type):
        raise InputError(f"{word} is a class; name an instance of it, or a function that asks one")
    if not callable(loaded):
        raise InputError(
            f"{word} is a {type(loaded).__name__}; a network, or a function from images [B, C, H, W] to "
            f"logits [B, K], is needed"
        )
    return from_callable(loaded, attribute, options)


def from_callable(function: LogitsFunction, name: str, options: InputOptions) -> Classifier:
    """A function as a classifier of RGB images, or of grey ones where ``options.mean`` has one channel.

    Raises:
        InputError: no ``size``, or answers of another form.
    """
    if options.size is None:
        raise InputError(
            f"{name} is a function and does not say how large its images are; give size, the side of the "
            f"canvas in pixels"
        )
    figures, size = options.normalisation(), options.size
    in_chans = 3 if figures is None else len(figures.mean)
    form = read_answers(function, None, name, (in_chans, size, size), options)
    if not form.is_logits:
        function = form.wrap(Called(function))
    if figures is not None:
        function = Normalised(Called(function), figures)
    protocol, assumed = fills_canvas(size, name)
    input_spec = InputSpec(
        name, in_chans, options.cropping(protocol), form.num_classes, assumed=assumed
    )
    return Classifier(input_spec, function, answers_assumed=form.remark)


class Called(nn.Module):
    """A function in a network's place."""

    def __init__(self, function: LogitsFunction) -> None:
        super().__init__()
        self.forward = function
