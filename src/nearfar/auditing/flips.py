"""How small a change of scale flips an answer, found by search."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nearfar.auditing.entrants import Entrant
from nearfar.auditing.images import AuditedImages
from nearfar.auditing.result import Flips
from nearfar.data.preprocess import Images

__all__ = ["PRECISION", "find_flips", "most_answers"]

#: A flip is known to this factor of scale.
PRECISION = 1.02
_COARSE = 2 ** (1 / 8)


def find_flips(
    entrant: Entrant,
    images: AuditedImages,
    which: Tensor,
    lowest: float,
    highest: float,
    batch_size: int = 128,
    answered: Callable[[int], None] = lambda count: None,
) -> Flips:
    """The smallest change of scale, up and down, at which the answer to an image is another.

    From scale 1 outward in steps of at most an eighth of an octave until the answer changes, then by
    bisection of that step. All images of a batch are asked about together, each at its own scale.

    Args:
        entrant: whom to ask.
        images: of the audit.
        which: ``[M]``, about which of them.
        lowest, highest: how far to search; a direction is left out where 1 is its end.
        batch_size: images at a time.
        answered: called with how many answers came in.

    Limits:
        An answer that changes and comes back within one step is not seen.
    """
    smaller, larger = [], []
    for at in images.batches(which, batch_size):
        shown = images.read(at)
        first = _ask(entrant, shown, torch.ones(len(at), dtype=torch.float64))
        answered(len(at))
        smaller.append(_search(entrant, shown, first, lowest, answered))
        larger.append(_search(entrant, shown, first, highest, answered))
    none = torch.empty(0, dtype=torch.float64)
    return Flips(
        which,
        torch.cat([none, *smaller]),
        torch.cat([none, *larger]),
        min(lowest, 1.0),
        max(highest, 1.0),
        PRECISION,
    )


def most_answers(count: int, lowest: float, highest: float) -> int:
    """How many answers :func:`find_flips` takes at most for ``count`` images."""
    return count * (1 + sum(_steps(end) + _bisections(end) for end in (lowest, highest)))


def _search(
    entrant: Entrant,
    shown: Images,
    first: Tensor,
    end: float,
    answered: Callable[[int], None],
) -> Tensor:
    """For each image the scale from 1 to ``end``, nearest to 1, of another answer; NaN if there is none."""
    steps = _steps(end)
    same = torch.ones(len(first), dtype=torch.float64)
    other = torch.full_like(same, torch.nan)
    for step in range(1, steps + 1):
        left = other.isnan().nonzero().flatten()
        if not len(left):
            break
        scale = end if step == steps else end ** (step / steps)
        scales = torch.full((len(left),), scale, dtype=torch.float64)
        changed = _ask(entrant, _some(shown, left), scales) != first[left]
        answered(len(left))
        other[left[changed]] = scale
        same[left[~changed]] = scale
    found = (~other.isnan()).nonzero().flatten()
    for _ in range(_bisections(end)):
        if not len(found):
            break
        middle = (same[found] * other[found]).sqrt()
        changed = _ask(entrant, _some(shown, found), middle) != first[found]
        answered(len(found))
        other[found[changed]] = middle[changed]
        same[found[~changed]] = middle[~changed]
    return other


def _steps(end: float) -> int:
    """How many steps of at most an eighth of an octave lead from 1 to ``end``."""
    # Rounding must not make a ninth step of an octave.
    return math.ceil(abs(math.log(end, _COARSE)) - 1e-9)


def _bisections(end: float) -> int:
    """How often a step is halved until it is no wider than the precision."""
    steps = _steps(end)
    if not steps:
        return 0
    width = abs(math.log(end)) / steps
    return max(0, math.ceil(math.log2(width / math.log(PRECISION)) - 1e-9))


def _ask(entrant: Entrant, images: Images, scales: Tensor) -> Tensor:
    return entrant.recogniser.ask(entrant.show_each(images, scales)).argmax(dim=1)


def _some(images: Images, at: Tensor) -> Images:
    return images[at] if isinstance(images, Tensor) else [images[i] for i in at.tolist()]
