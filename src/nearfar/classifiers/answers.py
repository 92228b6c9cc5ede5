"""What a model answers: which of its outputs tells the classes apart, and whether its numbers are logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.classifiers.classifier import LogitsFunction, raw_outputs
from nearfar.classifiers.input_spec import InputOptions
from nearfar.errors import InputError

__all__ = ["AnswerForm", "AsLogits", "read_answers"]

_Numbers = Literal["logits", "probabilities"]
#: How many images show what the numbers are: a row may sum to 1 by chance, several do not.
_IMAGES = 3
#: Names of outputs that hold the classes' numbers, in the order in which they are preferred.
_CLASS_OUTPUTS = ("logits", "probabilities", "probs")
#: By how much a row of probabilities may differ from 1: what half precision rounds.
_ROUNDING = 5e-3


@dataclass(frozen=True)
class AnswerForm:
    """How a model's output becomes logits.

    Attributes:
        num_classes: how many classes its numbers tell apart; one number tells two.
        numbers: what its numbers are.
        output: name of the one of several outputs that holds them; ``None`` for a model with one.
        remark: a sentence on what was assumed; empty where nothing was.
        one_number: whether it is the second class's number alone.
    """

    num_classes: int
    numbers: _Numbers = "logits"
    output: str | None = None
    remark: str = ""
    one_number: bool = False

    @property
    def is_logits(self) -> bool:
        """Whether the model answers with logits, one a class, in its only output."""
        return self.output is None and self.numbers == "logits" and not self.one_number

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network itself where it answers with logits, or else one around it that does."""
        return network if self.is_logits else AsLogits(network, self)


class AsLogits(nn.Module):
    """A network whose answer is logits ``[B, K]``, around one that answers otherwise.

    Probabilities become their logarithms, so softmax gives them back; one number for two classes becomes
    two, of which the first is 0.

    Args:
        network: ``[B, C, H, W]`` → anything.
        form: how its answer becomes logits.
    """

    def __init__(self, network: nn.Module, form: AnswerForm) -> None:
        super().__init__()
        self.network, self.form = network, form

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, K]``."""
        outputs = self.network(images)
        numbers: Tensor = (
            outputs if self.form.output is None else _named_outputs(outputs)[self.form.output]
        )
        if self.form.numbers == "probabilities":
            if self.form.one_number:
                numbers = torch.cat([1 - numbers, numbers], 1)
            # The smallest number above 0: a probability that rounds to 0 has no logarithm.
            return numbers.clamp(min=torch.finfo(numbers.dtype).tiny).log()
        return (
            torch.cat([torch.zeros_like(numbers), numbers], 1) if self.form.one_number else numbers
        )

    def extra_repr(self) -> str:
        """Output and what its numbers are."""
        return f"output={self.form.output!r}, numbers={self.form.numbers!r}"


def read_answers(
    function: LogitsFunction,
    module: nn.Module | None,
    name: str,
    shape: tuple[int, int, int],
    options: InputOptions,
    batch: int | None = None,
) -> AnswerForm:
    """Finds out what a model answers, by asking it about a few images.

    Args:
        function, module: as in :class:`nearfar.classifiers.Classifier`.
        name: for the errors' texts.
        shape: channels, height and width of its images.
        options: what the user says of it: ``num_classes``, ``answers`` and ``output``.
        batch: the one size of batches that it takes; ``None`` for any.

    Raises:
        InputError: it refuses the images, none or several of its outputs may be the classes', one number
            that may be a logit and a probability, or answers that are not what ``options`` say.
    """
    images = torch.rand(batch or _IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    outputs = _outputs_for(function, module, name, images)
    output, remark = _chosen(outputs, name, len(images), options)
    numbers = outputs[output].float()
    count = numbers.shape[1]
    if options.num_classes is not None and options.num_classes != max(2, count):
        raise InputError(
            f"{name} was said to answer with {options.num_classes} numbers, got {count}; mend num_classes"
        )
    kind, note = _kind_of(numbers, name, options)
    several = len(outputs) > 1 or output != ""
    return AnswerForm(
        max(2, count), kind, output if several else None, f"{remark} {note}".strip(), count == 1
    )


def _outputs_for(
    function: LogitsFunction, module: nn.Module | None, name: str, images: Tensor
) -> dict[str, Tensor]:
    """The model's outputs by name; one by one where it takes one image at a time."""
    failure: InputError | None = None
    try:
        outputs = _named_outputs(raw_outputs(function, module, name, images))
        if _rows(outputs, len(images)):
            return outputs
    except InputError as cause:
        failure = cause
    try:
        singles = [
            _named_outputs(raw_outputs(function, module, name, image))
            for image in torch.split(images, 1)
            if len(images) > 1
        ]
    except InputError:
        singles = []
    if singles and _rows(singles[0], 1):
        return {key: torch.cat([single[key] for single in singles]) for key in _rows(singles[0], 1)}
    if failure is not None:
        raise failure
    return outputs


def _named_outputs(answer: Any) -> dict[str, Tensor]:
    """All tensors of an answer; a single tensor is called by the empty name."""
    if isinstance(answer, Tensor):
        return {"": answer}
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        answer = {f.name: getattr(answer, f.name) for f in dataclasses.fields(answer)}
    if hasattr(answer, "_fields"):
        answer = dict(zip(answer._fields, answer, strict=True))
    if isinstance(answer, list | tuple):
        answer = {str(number): part for number, part in enumerate(answer)}
    if not isinstance(answer, Mapping):
        return {}
    return {str(key): part for key, part in answer.items() if isinstance(part, Tensor)}


def _rows(outputs: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """The outputs that are one row of numbers an image."""
    return {
        key: output
        for key, output in outputs.items()
        if output.dim() == 2 and len(output) == count and output.is_floating_point()
    }


def _chosen(
    outputs: Mapping[str, Tensor], name: str, count: int, options: InputOptions
) -> tuple[str, str]:
    """Which output holds the classes' numbers, and a sentence where others are left aside."""
    listed = ", ".join(f"{key!r} {list(output.shape)}" for key, output in outputs.items())
    rows = _rows(outputs, count)
    if options.output is not None:
        if list(outputs) == [""]:
            raise InputError(
                f"{name} has one output, got output={options.output!r}; leave output out"
            )
        if options.output not in outputs:
            raise InputError(
                f"{name} has no output named {options.output!r}; name one of {listed or 'none'}"
            )
        rows = {key: row for key, row in rows.items() if key == options.output}
    if options.num_classes is not None and len(rows) > 1:
        width = (options.num_classes, 1) if options.num_classes == 2 else (options.num_classes,)
        rows = {key: row for key, row in rows.items() if row.shape[1] in width}
    if not rows:
        got = listed.removeprefix("'' ") or "no tensor"
        raise InputError(
            f"{name} must answer {count} images with one tensor [{count}, K] of logits, got {got}; wrap it "
            f"so that it does"
        )
    named = [key for key in _CLASS_OUTPUTS if key in rows]
    if len(rows) > 1 and not named:
        raise InputError(
            f"{name} has {len(rows)} outputs that may be the classes': {listed}; name one of them with "
            f"output (--output NAME), or give num_classes"
        )
    output = named[0] if len(rows) > 1 else next(iter(rows))
    if options.output is not None or len(outputs) == 1:
        return output, ""
    return output, (
        f"{name} has {len(outputs)} outputs ({listed}): {output!r} is taken for the classes'; --output names "
        f"another."
    )


def _kind_of(numbers: Tensor, name: str, options: InputOptions) -> tuple[_Numbers, str]:
    """What the numbers ``[B, K]`` are, and a sentence where nobody said so and it is not the usual."""
    within = bool(((numbers >= 0) & (numbers <= 1)).all())
    if options.answers == "multilabel":
        raise InputError(
            "several labels at once are not supported: accuracy, confidence and what is built on them are of "
            "one class an image; export one label's output as a classifier of two classes"
        )
    if options.answers == "probabilities" and not within:
        raise InputError(
            f"{name} was said to answer with probabilities, got numbers from {numbers.min():.3g} to "
            f"{numbers.max():.3g}; give answers='logits'"
        )
    if options.answers is not None:
        return options.answers, ""
    if numbers.shape[1] == 1:
        if within:
            raise InputError(
                f"{name} answers with one number an image, from 0 to 1 for those tried: the second class's "
                f"probability, or its logit; say which: answers='probabilities' or answers='logits' "
                f"(--answers)"
            )
        return "logits", (
            f"{name} answers with one number an image: it is taken for the logit of the second of two "
            f"classes."
        )
    if within and bool(((numbers.sum(1) - 1).abs() < _ROUNDING).all()):
        return "probabilities", (
            f"{name} answers with probabilities (each row sums to 1) and is taken so; --answers logits if "
            f"they are logits."
        )
    if within and float(numbers.max()) > 0:  # all zero: a classifier that has not learnt yet
        return "logits", (
            f"{name} answers with numbers from 0 to 1 that do not sum to 1, as where several labels may be "
            f"right at once: they are taken for logits of one class an image."
        )
    return "logits", ""
