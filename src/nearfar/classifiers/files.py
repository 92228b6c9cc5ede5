"""What exported files say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from nearfar.classifiers.classifier import Classifier, LogitsFunction, count_classes
from nearfar.classifiers.functions import Called
from nearfar.classifiers.input_spec import InputSpec, fills_canvas
from nearfar.data import Normalisation, Normalised
from nearfar.errors import InputError

__all__ = ["input_spec_path", "classifier_of"]


def input_spec_path(path: Path) -> Path:
    """Where the input spec of an exported file lies: ``x.onnx`` has ``x.onnx.json``."""
    return path.with_name(path.name + ".json")


def classifier_of(
    path: Path,
    answer: LogitsFunction,
    module: nn.Module | None,
    shape: Sequence[int | None],
    carried: str | bytes,
    figures: Normalisation | None,
    size: int | None,
    num_classes: int | None,
) -> Classifier:
    """An exported file as a classifier, by its input spec or, without one, by its input's shape.

    Args:
        path: the file.
        answer: what runs it.
        module: the network that does, where there is one.
        shape: of its input, ``None`` for sizes left open.
        carried: the input spec in its metadata; empty if there is none.
        figures, size, num_classes: what a file without an input spec does not say of itself.

    Raises:
        InputError: an input spec that cannot be read, settings that it has settled, or no size known.
    """
    batch = shape[0]
    input_spec = _card_of(path, carried)
    if input_spec is not None:
        _explicit_input_spec(path, figures, size, num_classes)
        return Classifier(input_spec, answer, module, batch=batch)
    in_chans, side = shape[1] or 3, size or shape[2]
    if side is None:
        raise InputError(
            f"{path} takes images of any size and does not say which it was made for; give size"
        )
    if figures is not None:
        answer = Normalised(Called(answer) if module is None else module, figures)
        module = None if module is None else answer
    count = num_classes or count_classes(answer, None, path.name, in_chans, side, batch or 1)
    protocol, assumed = fills_canvas(side, path.name)
    input_spec = InputSpec(path.name, in_chans, protocol, count, None, shape[2] is None, assumed)
    return Classifier(input_spec, answer, module, batch=batch)


def _card_of(path: Path, carried: str | bytes) -> InputSpec | None:
    """An exported file's input_spec: the one that it carries, or the one beside it.

    Args:
        path: the file.
        carried: the text in its metadata; empty if there is none.

    Raises:
        InputError: an input spec that cannot be read.
    """
    if carried:
        text = carried.decode() if isinstance(carried, bytes) else carried
        return InputSpec.from_json(text, f"the input spec in {path}")
    beside = input_spec_path(path)
    if not beside.is_file():
        return None
    try:
        return InputSpec.from_json(beside.read_text(encoding="utf-8"), str(beside))
    except UnicodeDecodeError as cause:
        raise InputError(f"{beside} is not text: {cause}; export the model again") from cause


def _explicit_input_spec(
    path: Path, figures: Normalisation | None, size: int | None, num_classes: int | None
) -> None:
    """Refuses settings that a file's input_spec has settled.

    Raises:
        InputError: there are some.
    """
    if figures is not None or size is not None or num_classes is not None:
        raise InputError(
            f"{path} says itself how images are normalised, how large they are and how many classes there "
            f"are; leave out mean, std, size and num_classes"
        )
