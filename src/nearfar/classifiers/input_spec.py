"""InputSpec: what has to be known of a classifier besides its weights, to ask it about a photograph."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from nearfar.data import Normalisation, ScaleProtocol
from nearfar.errors import InputError
from nearfar.records import as_dataclass, as_typed, parse_json, short_repr

__all__ = ["Answers", "InputOptions", "InputSpec", "fills_canvas"]

#: More of either is no classifier of images, and would ask for a machine's memory.
_MOST_CHANNELS, _MOST_CLASSES = 4096, 1_000_000
_SCHEMA = "nearfar.input_spec/1"
Answers = Literal["logits", "probabilities", "multilabel"]
"""What a model's numbers are; several labels at once are refused."""


@dataclass(frozen=True)
class InputOptions:
    """What a model does not say of its images and answers; see :func:`nearfar.load_classifier`.

    Args:
        mean, std: of each channel, of values from 0 to 1: what images are normalised by.
        size: side of the canvas, in pixels.
        num_classes: how many classes it tells apart.
        answers: ``logits`` or ``probabilities``; default: what a few images show.
        output: name of the output that holds them (or its number), where there are several.
        crop_pct: which share of an image's side the canvas shows at scale 1.

    Raises:
        InputError: a size below 1, a share that is not above 0, or an unknown word.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: int | None = None
    num_classes: int | None = None
    answers: Answers | None = None
    output: str | None = None
    crop_pct: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if self.size is not None and self.size < 1:
            raise InputError(f"size is a side in pixels, at least 1, got {self.size}")
        if self.crop_pct is not None and not 0 < self.crop_pct < math.inf:
            raise InputError(
                f"crop_pct is the share of an image's side that the canvas shows, above 0, got "
                f"{self.crop_pct}"
            )
        if self.answers not in (None, *get_args(Answers)):
            raise InputError(
                f"answers must be one of {', '.join(get_args(Answers))}, got {self.answers!r}"
            )

    def normalisation(self) -> Normalisation | None:
        """Mean and standard deviation; ``None`` where neither is given."""
        return Normalisation(self.mean, self.std) if self.mean or self.std else None

    def cropping(self, protocol: ScaleProtocol) -> ScaleProtocol:
        """A protocol with the content that ``crop_pct`` asks for; as it is where nobody says."""
        if self.crop_pct is None:
            return protocol
        height, width = (max(1, math.floor(n / self.crop_pct)) for n in protocol.canvas_size)
        content = height if height == width else (height, width)
        return dataclasses.replace(protocol, content=content)

    def check_unset(self, name: str) -> None:
        """Refuses options for a classifier that says everything itself.

        Args:
            name: of the classifier.

        Raises:
            InputError: there are some.
        """
        if self != InputOptions():
            raise InputError(
                f"{name} says itself how images are normalised, how large they are, how many classes there "
                f"are and what its answers are; leave out mean, std, size, "
                f"num_classes, answers, output and crop_pct"
            )


@dataclass(frozen=True)
class InputSpec:
    """How an image becomes a classifier's input, and what its answers stand for.

    The input is ``[B, in_chans, canvas, canvas]`` with values from 0 to 1; what normalisation the
    network needs it does itself.

    Args:
        name: what the classifier is called in tables.
        in_chans: channels: 1 (grey) or 3 (RGB).
        protocol: canvas, and how an image is laid on it at scale 1.
        num_classes: how many answers there are.
        class_names: what they stand for, in order; ``None`` where nobody has said.
        any_size: whether the classifier takes images of other sizes than the canvas too.
        assumed: a sentence on what nobody has said of how it wants its images, and what is assumed instead;
            empty where all is known.

    Raises:
        InputError: not one name a class.
    """

    name: str
    in_chans: int
    protocol: ScaleProtocol
    num_classes: int
    class_names: tuple[str, ...] | None = None
    any_size: bool = True
    assumed: str = ""

    def __post_init__(self) -> None:
        for name, most in (("in_chans", _MOST_CHANNELS), ("num_classes", _MOST_CLASSES)):
            if not 1 <= getattr(self, name) <= most:
                raise InputError(
                    f"{name} of {self.name} must be from 1 to {most:,}, got {short_repr(getattr(self, name))}"
                )
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(self.class_names))
            if len(self.class_names) != self.num_classes:
                raise InputError(
                    f"{self.name} answers with {self.num_classes} numbers, got {len(self.class_names)} class "
                    f"names; give one for each, or none"
                )

    def names(self) -> tuple[str, ...]:
        """The classes' names, or their numbers where nobody has named them."""
        return self.class_names or tuple(str(i) for i in range(self.num_classes))

    def as_json(self) -> str:
        """The input spec as text, for a file's metadata or a file beside it."""
        preprocess = dataclasses.asdict(self.protocol)
        plain = {
            "schema": _SCHEMA,
            "name": self.name,
            "input": {
                "layout": "batch, channel, row, column",
                "in_chans": self.in_chans,
                "values": [0.0, 1.0],
                "canvas": preprocess["canvas"],
                "content": preprocess["content"],
                "side": preprocess["side"],
                "interpolation": preprocess["interpolation"],
                "background": preprocess["background"],
                "any_size": self.any_size,
                "assumed": self.assumed,
            },
            "num_classes": self.num_classes,
            "class_names": None if self.class_names is None else list(self.class_names),
        }
        return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> InputSpec:
        """The inverse of :meth:`as_json`.

        Args:
            text: the input spec.
            source: what it came from, for the error's text.

        Raises:
            InputError: not an input spec, or one of a later form.
        """
        mend = "export the model again"
        fields = parse_json(text, source, mend)
        schema = fields.get("schema") if isinstance(fields, dict) else None
        if schema != _SCHEMA:
            raise InputError(
                f"{source} is an input spec of the form {short_repr(schema)}, this nearfar reads "
                f"{_SCHEMA!r}; {mend}"
            )
        try:
            preprocess = as_typed(dict[str, Any], fields.get("input"), "input")
            keys = ("canvas", "content", "side", "interpolation")
            protocol = {key: preprocess[key] for key in keys}
            protocol["background"] = preprocess.get("background", "black")  # older specs do not say
            parts = {
                "name": fields["name"],
                "in_chans": preprocess["in_chans"],
                "protocol": protocol,
                "num_classes": fields["num_classes"],
                "class_names": fields["class_names"],
                "any_size": preprocess["any_size"],
                "assumed": preprocess.get("assumed", ""),
            }
            return as_dataclass(cls, parts, "it")
        except (InputError, KeyError) as cause:
            reason = f"it lacks {cause}" if isinstance(cause, KeyError) else cause
            raise InputError(
                f"{source} is not an input spec as 'nearfar export' writes it ({reason}); {mend}"
            ) from cause


def fills_canvas(size: int | None, name: str) -> tuple[ScaleProtocol, str]:
    """Preprocessing for a classifier that does not say how it wants its images, and a sentence on that.

    Args:
        size: side of the canvas in pixels.
        name: of the classifier.

    Raises:
        InputError: no size.
    """
    if size is None:
        raise InputError(
            f"{name} does not say how large its images are; give size, the side of the canvas in pixels"
        )
    return ScaleProtocol(canvas=size, content=size), (
        f"{name} does not say how it wants its images: it is assumed that an image's longer side fills the "
        f"{size} pixels of the canvas (bicubic), the rest black."
    )
