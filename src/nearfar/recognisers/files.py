"""What exported files say of themselves."""

from __future__ import annotations

from pathlib import Path

from nearfar.data import Normalisation
from nearfar.errors import InputError
from nearfar.recognisers.card import Card

__all__ = ["card_beside", "card_of", "given_card"]


def card_beside(path: Path) -> Path:
    """Where the card of an exported file lies: ``x.onnx`` has ``x.onnx.json``."""
    return path.with_name(path.name + ".json")


def card_of(path: Path, carried: str | bytes) -> Card | None:
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


def given_card(
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
