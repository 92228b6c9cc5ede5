"""The levels that a network could be shown an image at: their pixels, what they cost, and those it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from nearfar.conversion.ensemble import PyramidEnsemble, Window, takes_one_size
from nearfar.conversion.trial import size_fault
from nearfar.counting import count
from nearfar.data import Normalisation, Normalised
from nearfar.errors import InputError
from nearfar.grid import level_size
from nearfar.models.hierarchical import distinct_scales
from nearfar.scale_sets import ScaleSet, as_scales

__all__ = ["LEVELS", "CandidateLevel", "CandidateLevels", "candidate_levels"]

#: The scales tried by default: a factor of about 1.2 apart.
LEVELS = (0.35, 0.42, 0.5, 0.6, 0.71, 0.84, 1.0, 1.19, 1.41, 1.68, 2.0)


@dataclass(frozen=True)
class CandidateLevel:
    """An image at one scale, as the network is shown it.

    Attributes:
        scale: of the level.
        size: height and width that the network is shown, in pixels.
        cost: multiplications, as a share of what the network takes for the image itself.
        network: from images of values from 0 to 1 to the level's log-probabilities.
    """

    scale: float
    size: tuple[int, int]
    cost: float
    network: nn.Module


@dataclass(frozen=True)
class CandidateLevels:
    """All levels that a network can be shown.

    Attributes:
        levels: one for each distinct size, smallest scale first.
        window: how much of an image they show, as in
            :class:`nearfar.conversion.PyramidEnsemble`.
        multiplications: of the network for the image itself.
        notes: what is left out and why, in sentences.
    """

    levels: tuple[CandidateLevel, ...]
    window: Window
    multiplications: int
    notes: tuple[str, ...] = ()

    @property
    def base(self) -> int:
        """Which level is the image itself."""
        return next(i for i, level in enumerate(self.levels) if level.scale == 1)


def candidate_levels(
    network: nn.Module,
    canvas: tuple[int, int],
    in_chans: int,
    figures: Normalisation | None = None,
    scales: ScaleSet = LEVELS,
    window: Literal["image", "all", "fixed"] | None = None,
) -> CandidateLevels:
    """The levels of a canvas that a network takes, each once.

    Args:
        network: without its normalisation; it is run on random images of the levels' sizes.
        canvas: height and width of its images, in pixels.
        in_chans: their channels.
        figures: what its input is normalised by.
        scales: which to try; 1 is added.
        window: how much of an image the levels show, as in :class:`nearfar.conversion.PyramidEnsemble`.
            Default: ``image``, or where the network takes its own size alone ``fixed``.

    Raises:
        InputError: bad scales or another window, or nothing but the image itself that the network takes.
    """
    values = tuple(sorted({*as_scales(scales), 1.0}))
    side = max(canvas)
    refused: dict[float, str] = {}
    notes: list[str] = []
    if window != "fixed" and takes_one_size(network):
        refused = dict.fromkeys(values, "it takes images of one size")
    elif window != "fixed":
        values, notes = _merged(values, canvas)
        refused = _refused(network, side, values, window)
    others = [s for s in values if max(_level_size(canvas, s, window)) not in (0, side)]
    if refused and all(s in refused for s in others or refused):
        if window is not None:
            raise InputError(
                f"{type(network).__name__} takes images of {side} pixels a side and of no level's size "
                f"({next(iter(refused.values()))}); give window='fixed', or leave window out"
            )
        if canvas[0] != canvas[1]:
            raise InputError(
                f"{type(network).__name__} takes images of {canvas[0]}×{canvas[1]} alone, and a window is "
                f"square; it cannot be put over several sizes"
            )
        window, refused = "fixed", {}
        values, notes = tuple(sorted({*as_scales(scales), 1.0})), []
        notes.append(
            f"{type(network).__name__} takes images of one size: every level is seen through a window of "
            f"that size, and costs as much as the image itself."
        )
    window = window or "image"
    notes += [f"The level {s:g} is left out: {why}." for s, why in refused.items()]
    usable = tuple(s for s in values if s not in refused and min(_sizes(canvas, s)) > 0)
    levels = [_level(network, s, canvas, in_chans, figures, window) for s in usable]
    whole = next(level for level in levels if level.scale == 1)
    base = max(1, int(whole.cost))
    shares = (CandidateLevel(v.scale, v.size, v.cost / base, v.network) for v in levels)
    return CandidateLevels(tuple(shares), window, base, tuple(notes))


def _sizes(canvas: tuple[int, int], scale: float) -> tuple[int, int]:
    return level_size(canvas[0], scale), level_size(canvas[1], scale)


def _level_size(canvas: tuple[int, int], scale: float, window: Window | None) -> tuple[int, int]:
    """Height and width of a level as the network meets it."""
    if window == "fixed":
        return max(canvas), max(canvas)
    size = _sizes(canvas, scale)
    return size if window == "all" else (min(size[0], canvas[0]), min(size[1], canvas[1]))


def _merged(
    values: tuple[float, ...], canvas: tuple[int, int]
) -> tuple[tuple[float, ...], list[str]]:
    """One scale for each size; and which are the same, in sentences."""
    distinct = distinct_scales(torch.empty(1, 1, *canvas, device="meta"), values)
    notes = []
    for scale in distinct:
        same = [s for s in values if _sizes(canvas, s) == _sizes(canvas, scale)]
        if len(same) > 1:
            listed = ", ".join(f"{s:g}" for s in same)
            size = "×".join(map(str, _sizes(canvas, scale)))
            notes.append(
                f"Levels {listed} come out at {size} pixels: they are one level, {scale:g}."
            )
    return distinct, notes


def _refused(
    network: nn.Module, side: int, values: Sequence[float], window: Window | None
) -> dict[float, str]:
    """Why the network does not take levels of some scales."""
    largest = None if window == "all" else side
    refused = {}
    for scale in values:
        size = min(level_size(side, scale), largest or level_size(side, scale))
        if size < 1:
            refused[scale] = f"it would have no pixel of {side}"
        elif size != side and (fault := size_fault(network, side, size)):
            refused[scale] = f"the network does not take {size}×{size} pixels ({fault})"
    return refused


def _level(
    network: nn.Module,
    scale: float,
    canvas: tuple[int, int],
    in_chans: int,
    figures: Normalisation | None,
    window: Window,
) -> CandidateLevel:
    """A level with its multiplications, not yet as a share."""
    alone = PyramidEnsemble((scale,), window=window).over(network, max(canvas))
    whole: nn.Module = alone if figures is None else Normalised(alone, figures)
    like = next((p for p in network.parameters() if p.is_floating_point()), None)
    if like is not None:
        whole.to(like.device, like.dtype)
    size = _level_size(canvas, scale, window)
    multiplications = count(whole, (in_chans, *canvas)).multiplications
    return CandidateLevel(scale, size, float(multiplications), whole)
