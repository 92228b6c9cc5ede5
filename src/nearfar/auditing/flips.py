"""How small a change of scale flips a prediction, found by search."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nearfar.auditing.audited_images import AuditedImages
from nearfar.auditing.audited_models import AuditedModel
from nearfar.auditing.result import Flips
from nearfar.data.preprocess import Images

__all__ = ["PRECISION", "find_flips", "most_predictions"]

#: A flip is known to this factor of scale.
PRECISION = 1.02
_STEP = 2 ** (1 / 8)


def find_flips(
    model: AuditedModel,
    images: AuditedImages,
    which: Tensor,
    lowest: float,
    highest: float,
    batch_size: int = 128,
    answered: Callable[[int], None] = lambda count: None,
) -> Flips:
    """The smallest change of scale, up and down, at which the predicted class of an image changes.

    From scale 1 outward in steps of at most an eighth of an octave until the prediction changes, then by
    bisection of that step. All images of a batch are predicted together, each at its own scale.

    Args:
        model: under audit.
        images: of the audit.
        which: ``[M]`` indices of the images to search.
        lowest, highest: the ends of the search; a direction is left out where 1 is its end.
        batch_size: images at a time.
        answered: called with the number of new predictions.

    Limits:
        A prediction that changes and changes back within one step is missed.
    """
    smaller, larger = [], []
    for indices in images.batches(which, batch_size):
        originals = images.read(indices)
        first = _predict(model, originals, torch.ones(len(indices), dtype=torch.float64))
        answered(len(indices))
        smaller.append(_search(model, originals, first, lowest, answered))
        larger.append(_search(model, originals, first, highest, answered))
    none = torch.empty(0, dtype=torch.float64)
    return Flips(
        which,
        torch.cat([none, *smaller]),
        torch.cat([none, *larger]),
        min(lowest, 1.0),
        max(highest, 1.0),
        PRECISION,
    )


def most_predictions(count: int, lowest: float, highest: float) -> int:
    """How many predictions :func:`find_flips` needs at most for ``count`` images."""
    return count * (1 + sum(_steps(end) + _bisections(end) for end in (lowest, highest)))


def _search(
    model: AuditedModel,
    images: Images,
    first: Tensor,
    end: float,
    answered: Callable[[int], None],
) -> Tensor:
    """For each image the scale from 1 to ``end``, nearest to 1, of another prediction; NaN: there is none."""
    steps = _steps(end)
    same = torch.ones(len(first), dtype=torch.float64)
    other = torch.full_like(same, torch.nan)
    for step in range(1, steps + 1):
        left = other.isnan().nonzero().flatten()
        if not len(left):
            break
        scale = end if step == steps else end ** (step / steps)
        scales = torch.full((len(left),), scale, dtype=torch.float64)
        changed = _predict(model, _some(images, left), scales) != first[left]
        answered(len(left))
        other[left[changed]] = scale
        same[left[~changed]] = scale
    flipped = (~other.isnan()).nonzero().flatten()
    for _ in range(_bisections(end)):
        if not len(flipped):
            break
        middle = (same[flipped] * other[flipped]).sqrt()
        changed = _predict(model, _some(images, flipped), middle) != first[flipped]
        answered(len(flipped))
        other[flipped[changed]] = middle[changed]
        same[flipped[~changed]] = middle[~changed]
    return other


def _steps(end: float) -> int:
    """How many steps of at most an eighth of an octave lead from 1 to ``end``."""
    # Rounding must not make a ninth step of an octave.
    return math.ceil(abs(math.log(end, _STEP)) - 1e-9)


def _bisections(end: float) -> int:
    """How often a step is halved until it is no wider than the precision."""
    steps = _steps(end)
    if not steps:
        return 0
    width = abs(math.log(end)) / steps
    return max(0, math.ceil(math.log2(width / math.log(PRECISION)) - 1e-9))


def _predict(model: AuditedModel, images: Images, scales: Tensor) -> Tensor:
    return model.classifier.predict(model.show_each(images, scales)).argmax(dim=1)


def _some(images: Images, indices: Tensor) -> Images:
    return images[indices] if isinstance(images, Tensor) else [images[i] for i in indices.tolist()]
