"""An exported file against the network it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nearfar.classifiers import InputSpec
from nearfar.deploy.capture import Openness
from nearfar.errors import first_line

__all__ = ["Checked", "DifferentError", "checked", "shapes_to_try"]

Shape = tuple[int, ...]


class DifferentError(Exception):
    """An exported file does not do what its network does.

    Attributes:
        error: the largest difference seen; ``None`` where the file refused what the network took.
    """

    def __init__(self, message: str, error: float | None = None) -> None:
        super().__init__(message)
        self.error = error


@dataclass(frozen=True)
class Checked:
    """What was compared.

    Attributes:
        error: the largest difference of an answer, as a share of the network's largest answer to the
            same batch.
        shapes: of the batches; those that the network itself refuses are not among them.
    """

    error: float
    shapes: tuple[Shape, ...]


def shapes_to_try(input_spec: InputSpec, openness: Openness) -> tuple[Shape, ...]:
    """Batches to compare on: of the canvas's size, and where sizes are open of odd and oblong ones."""
    high, wide = input_spec.protocol.canvas_size
    sizes = [(1, high, wide)]
    if openness.batch:
        sizes.append((3, high, wide))
    if openness.image:
        higher, wider = (side + side // 4 | 1 for side in (high, wide))
        lower, narrower = (side - side // 4 | 1 for side in (high, wide))
        sizes += [(2, higher, wide), (1, high, narrower), (2, lower, wider)]
    return tuple((batch, input_spec.in_chans, height, width) for batch, height, width in sizes)


def checked(
    network: nn.Module,
    answer: Callable[[Tensor], Tensor],
    input_spec: InputSpec,
    openness: Openness,
    tolerance: float,
) -> Checked:
    """Compares a file's answers with the network's, on random images.

    Args:
        network: in eval mode.
        answer: runs the file.
        input_spec, openness: which images.
        tolerance: the largest difference that is let through, as :class:`Checked` has it.

    Raises:
        DifferentError: a larger difference, images that the network takes and the file does not, or open
            sizes where the network itself takes the canvas's alone.
        Exception: the network refuses images of the canvas's size.
    """
    draw = torch.Generator().manual_seed(0)
    largest, done = 0.0, []
    canvas = input_spec.protocol.canvas_size
    for shape in shapes_to_try(input_spec, openness):
        images = torch.rand(shape, generator=draw)
        written = "×".join(map(str, shape))
        try:
            with torch.inference_mode():
                expected = network(images)
        except Exception:
            if shape[-2:] == canvas:
                raise
            continue
        if expected.shape != (len(images), input_spec.num_classes):
            # It took several images for one, or one for several.
            if shape[-2:] == canvas:
                raise DifferentError(f"the network answers {written} with {tuple(expected.shape)}")
            continue
        try:
            with torch.inference_mode():
                logits = answer(images)
        except Exception as cause:
            raise DifferentError(
                f"the exported file refuses {written}, which the network takes: {first_line(cause)}"
            ) from cause
        error = _difference(logits, expected)
        if not error <= tolerance:
            raise DifferentError(
                f"the exported file's answers to {written} differ by {error:.2g} of the largest",
                error,
            )
        largest = max(largest, error)
        done.append(shape)
    if openness.image and all(shape[-2:] == canvas for shape in done):
        raise DifferentError(f"the network takes images of {canvas[0]}×{canvas[1]} only")
    return Checked(largest, tuple(done))


def _difference(logits: Tensor, expected: Tensor) -> float:
    if logits.shape != expected.shape:
        return float("inf")
    size = float(expected.abs().max())
    error = float((logits - expected).abs().max())
    return error / size if size > 0 else error
