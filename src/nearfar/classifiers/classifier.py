"""Classifier: a network, file or function of any make, from images to logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.classifiers.input_spec import InputSpec
from nearfar.data import ScaleProtocol
from nearfar.errors import InputError, first_line
from nearfar.models.modes import evaluating
from nearfar.training import Checkpoint, ModelSpec

__all__ = ["Classifier", "LogitsFunction", "raw_outputs"]

LogitsFunction = Callable[[Tensor], Tensor]
"""``[B, C, H, W]``, values from 0 to 1 → ``[B, K]`` logits."""


@dataclass(frozen=True)
class Classifier:
    """A classifier of any make.

    Attributes:
        input_spec: how images become its input, and what its logits stand for.
        function: from images to logits, as it is; use :meth:`predict`.
        module: the network, its normalisation included; ``None`` for an ONNX file or a function.
        spec: what builds the network anew, with its weights; ``None`` where only the caller knows.
        checkpoint: what ``nearfar train`` wrote, where it comes from there.
        batch: the one size of batches that it takes; ``None`` for any.
        answers_assumed: a sentence on what its answers are taken for, where nobody has said.
        protocol_at: side in pixels → how its publisher shows images on a canvas of that side; ``None`` where
            no publisher has a rule.
    """

    input_spec: InputSpec
    function: LogitsFunction
    module: nn.Module | None = None
    spec: ModelSpec | None = None
    checkpoint: Checkpoint | None = None
    batch: int | None = None
    answers_assumed: str = ""
    protocol_at: Callable[[int], ScaleProtocol] | None = None

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return self.input_spec.name

    def predict(self, images: Tensor) -> Tensor:
        """Logits of a batch of images; in eval mode, without gradients.

        Args:
            images: ``[B, C, H, W]``, values from 0 to 1, on the CPU.

        Returns:
            ``[B, K]`` float32 on the CPU.

        Raises:
            InputError: the classifier refuses the images, or does not answer with ``[B, K]``.
        """
        if self.batch is None or self.batch == len(images):
            logits = _run(self.function, self.module, self.name, images)
        else:
            logits = torch.cat([self._filled(part) for part in torch.split(images, self.batch)])
        if logits.shape[1] != self.input_spec.num_classes:
            raise InputError(
                f"{self.name} was said to answer with {self.input_spec.num_classes} numbers, got "
                f"{logits.shape[1]}; mend num_classes"
            )
        return logits

    def _filled(self, images: Tensor) -> Tensor:
        """Logits of a part of a batch; the rest of the one size that it takes is filled with zeros."""
        assert self.batch is not None
        empty = images.new_zeros(self.batch - len(images), *images.shape[1:])
        return _run(self.function, self.module, self.name, torch.cat([images, empty]))[
            : len(images)
        ]


def raw_outputs(
    function: LogitsFunction, module: nn.Module | None, name: str, images: Tensor
) -> Any:
    """What a model gives for images, whatever that is; in eval mode, without gradients.

    Args:
        function, module: as in :class:`Classifier`.
        name: for the error's text.
        images: ``[B, C, H, W]``, values from 0 to 1, on the CPU.

    Raises:
        InputError: the model refuses them.
    """
    device, dtype = _device_and_type(module)
    batch = images.to(device, dtype).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode(), evaluating(module):
            return function(batch)
    except InputError:
        raise
    except Exception as cause:
        raise InputError(
            f"{name} does not take images of {'×'.join(map(str, images.shape[1:]))}: {first_line(cause)}; "
            f"give it images of its own size, or name that size"
        ) from cause


def _run(function: LogitsFunction, module: nn.Module | None, name: str, images: Tensor) -> Tensor:
    logits = raw_outputs(function, module, name, images)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"{name} must answer {len(images)} images with one tensor [{len(images)}, K] of logits, got "
            f"{got}; wrap it so that it does"
        )
    return logits.float().cpu()


def _device_and_type(module: nn.Module | None) -> tuple[torch.device, torch.dtype]:
    """Device and type of number that a network computes on."""
    for tensor in () if module is None else (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.float32
