"""Classifier: a classifier of any make, asked with images of values from 0 to 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nearfar.classifiers.input_spec import InputSpec
from nearfar.errors import InputError
from nearfar.training import Checkpoint, ModelSpec

__all__ = ["Answer", "Classifier", "count_answers", "evaluating"]

Answer = Callable[[Tensor], Tensor]
"""``[B, C, H, W]``, values from 0 to 1 → ``[B, K]`` logits."""


@dataclass(frozen=True)
class Classifier:
    """A classifier of any make.

    Attributes:
        input_spec: how images become its input, and what its answers stand for.
        answer: what answers. Use :meth:`ask`.
        module: the network that answers, its normalisation included; ``None`` for what can only be
            asked: an ONNX file, a function.
        spec: what builds the network anew, with its weights; ``None`` where only the caller knows.
        checkpoint: what ``nearfar train`` wrote, where it comes from there.
        batch: the one size of batches that it takes; ``None`` for any.
    """

    input_spec: InputSpec
    answer: Answer
    module: nn.Module | None = None
    spec: ModelSpec | None = None
    checkpoint: Checkpoint | None = None
    batch: int | None = None

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return self.input_spec.name

    def predict(self, images: Tensor) -> Tensor:
        """Answers to a batch of images; in eval mode, without gradients.

        Args:
            images: ``[B, C, H, W]``, values from 0 to 1, on the CPU.

        Returns:
            ``[B, K]`` float32 on the CPU.

        Raises:
            InputError: the classifier refuses the images, or does not answer with ``[B, K]``.
        """
        if self.batch is None or self.batch == len(images):
            answers = _asked(self.answer, self.module, self.name, images)
        else:
            answers = torch.cat([self._filled(part) for part in torch.split(images, self.batch)])
        if answers.shape[1] != self.input_spec.num_classes:
            raise InputError(
                f"{self.name} was said to answer with {self.input_spec.num_classes} numbers, got "
                f"{answers.shape[1]}; mend num_classes"
            )
        return answers

    def _filled(self, images: Tensor) -> Tensor:
        """What takes one size of batches is asked about empty images besides."""
        assert self.batch is not None
        empty = images.new_zeros(self.batch - len(images), *images.shape[1:])
        return _asked(self.answer, self.module, self.name, torch.cat([images, empty]))[
            : len(images)
        ]


def count_answers(
    answer: Answer,
    module: nn.Module | None,
    name: str,
    in_chans: int,
    size: int | tuple[int, int],
    batch: int = 1,
) -> int:
    """How many classes something answers with, found with grey images.

    Args:
        answer, module: as in :class:`Classifier`.
        name: for the error's text.
        in_chans, size: of the images: one side, or height and width.
        batch: how many of them.

    Raises:
        InputError: as :meth:`Classifier.predict` does.
    """
    height, width = (size, size) if isinstance(size, int) else size
    images = torch.full((batch, in_chans, height, width), 0.5)
    return int(_asked(answer, module, name, images).shape[1])


def _asked(answer: Answer, module: nn.Module | None, name: str, images: Tensor) -> Tensor:
    device, dtype = _place(module)
    given = images.to(device, dtype).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode(), evaluating(module):
            answers = answer(given)
    except InputError:
        raise
    except Exception as cause:
        said = str(cause).strip().partition("\n")[0]
        raise InputError(
            f"{name} does not take images of {'×'.join(map(str, images.shape[1:]))}: {said}; give it "
            f"images of its own size, or name that size"
        ) from cause
    if not isinstance(answers, Tensor) or answers.dim() != 2 or len(answers) != len(images):
        got = tuple(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
        raise InputError(
            f"{name} must answer {len(images)} images with one tensor [{len(images)}, K] of logits, got "
            f"{got}; wrap it so that it does"
        )
    return answers.float().cpu()


def _place(module: nn.Module | None) -> tuple[torch.device, torch.dtype]:
    """Device and type of number that a network computes on."""
    for tensor in () if module is None else (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.float32


@contextmanager
def evaluating(module: nn.Module | None) -> Iterator[None]:
    """A network in eval mode for the time of the block, every part as it was afterwards."""
    parts = [] if module is None else [part for part in module.modules() if part.training]
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part in parts:
            part.training = True
