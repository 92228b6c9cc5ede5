"""What exported files say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from nearfar.data import Normalisation, Normalised
from nearfar.errors import InputError
from nearfar.recognisers.card import Card, fills_canvas
from nearfar.recognisers.functions import Called
from nearfar.recognisers.recogniser import Answer, Recogniser, count_answers

__all__ = ["card_beside", "recogniser_of"]


def card_beside(path: Path) -> Path:
    """Where the card of an exported file lies: ``x.onnx`` has ``x.onnx.json``."""
    return path.with_name(path.name + ".json")


def recogniser_of(
    path: Path,
    answer: Answer,
    module: nn.Module | None,
    shape: Sequence[int | None],
    carried: str | bytes,
    figures: Normalisation | None,
    size: int | None,
    num_classes: int | None,
) -> Recogniser:
    """An exported file as a recogniser, by its card or, without one, by its input's shape.

    Args:
        path: the file.
        answer: what runs it.
        module: the network that does, where there is one.
        shape: of its input, ``None`` for sizes left open.
        carried: the card in its metadata; empty if there is none.
        figures, size, num_classes: what a file without a card does not say of itself.

    Raises:
        InputError: a card that cannot be read, settings that it has settled, or no size known.
    """
    batch = shape[0]
    card = _card_of(path, carried)
    if card is not None:
        _given_card(path, figures, size, num_classes)
        return Recogniser(card, answer, module, batch=batch)
    in_chans, side = shape[1] or 3, size or shape[2]
    if side is None:
        raise InputError(
            f"{path} takes images of any size and does not say which it was made for; give size"
        )
    if figures is not None:
        answer = Normalised(Called(answer) if module is None else module, figures)
        module = None if module is None else answer
    count = num_classes or count_answers(answer, None, path.name, in_chans, side, batch or 1)
    protocol, assumed = fills_canvas(side, path.name)
    card = Card(path.name, in_chans, protocol, count, None, shape[2] is None, assumed)
    return Recogniser(card, answer, module, batch=batch)


def _card_of(path: Path, carried: str | bytes) -> Card | None:
    """An exported file's card: the one that it carries, or the one beside it.

    Args:
        path: the file.
        carried: the text in its metadata; empty if there is none.

    Raises:
        InputError: a card that cannot be read.
    """
    if carried:
        text = carried.decode() if isinstance(carried, bytes) else carried
        return Card.from_json(text, f"the card in {path}")
    beside = card_beside(path)
    if not beside.is_file():
        return None
    try:
        return Card.from_json(beside.read_text(encoding="utf-8"), str(beside))
    except UnicodeDecodeError as cause:
        raise InputError(f"{beside} is not text: {cause}; export the model again") from cause


def _given_card(
    path: Path, figures: Normalisation | None, size: int | None, num_classes: int | None
) -> None:
    """Refuses settings that a file's card has settled.

    Raises:
        InputError: there are some.
    """
    if figures is not None or size is not None or num_classes is not None:
        raise InputError(
            f"{path} says itself how images are normalised, how large they are and how many classes there "
            f"are; leave out mean, std, size and num_classes"
        )
