"""Folding: an enlarged branch of an SI-layer as a few small convolutions on the base grid.

For a ratio ``s = p/q ≥ 1`` in lowest terms the branch ``T⁻¹ ∘ (W *) ∘ T`` (enlarge, convolve with
'same' zero padding, bring back) is linear, and moving its input by ``q`` samples moves its output by
``q``. So it equals ``q²`` ordinary convolutions of stride ``q``, one for each phase of the output,
with effective kernels ``E_a W E_bᵀ``. For s = 2 and k = 5 that is one 5×5 convolution where the branch
itself multiplies four times as much.

Away from the borders that is all. At a border the branch's convolution sees zeros outside the enlarged
map, while a map continued by its edge samples would show it the edge. The difference reads the edge row
alone: it is a one-dimensional convolution along the edge for a few rows, and one number for each
corner. All of it is exact.

Per axis, with Z the branch with zeros outside, R the branch on the map continued by its edges, and e
the difference:  ``Z ⊗ Z = R ⊗ R − e ⊗ R − R ⊗ e + e ⊗ e``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["AxisFold", "can_fold", "fold_axis", "folded_branch"]

#: More phases than this cost more in small convolutions than the folding saves.
_MOST_PHASES = 2


@dataclass(frozen=True)
class AxisFold:
    """The folding of one axis.

    Attributes:
        first: base offset of the first tap, for each phase.
        taps: ``E``, for each phase the taps as rows over the kernel's entries.
        edge: ``e``, rows for the first outputs, over the kernel's entries; the last outputs mirror it.
    """

    first: tuple[int, ...]
    taps: tuple[tuple[tuple[float, ...], ...], ...]
    edge: tuple[tuple[float, ...], ...]

    @property
    def phases(self) -> int:
        """q, the number of phases."""
        return len(self.first)

    @property
    def before(self) -> int:
        """Samples that the taps reach before the map."""
        return max(0, *(-m for m in self.first))

    @property
    def after(self) -> int:
        """Samples that the taps reach behind the map."""
        reach = [
            m + len(t) - 1 - a for a, (m, t) in enumerate(zip(self.first, self.taps, strict=True))
        ]
        return max(0, *(r + a for a, r in enumerate(reach)), *reach)


def can_fold(ratio: Fraction, size: tuple[int, int], kernel: tuple[int, int]) -> bool:
    """Whether a branch of an odd 'same' kernel at stride 1 folds, and gains by it.

    The enlarged map must have a whole number of samples, or the ratio of the sizes is another one;
    and the map must be large enough that its two borders do not meet.
    """
    return (
        ratio > 1
        and ratio.denominator <= _MOST_PHASES
        and all(k % 2 == 1 for k in kernel)
        and all((n * ratio).denominator == 1 for n in size)
        and all(n >= 2 * len(fold_axis(ratio, k).edge) for n, k in zip(size, kernel, strict=True))
    )


@lru_cache(maxsize=64)
def fold_axis(ratio: Fraction, kernel: int) -> AxisFold:
    """Folds one axis for a ratio above 1 and an odd kernel; exact rational arithmetic."""
    half = kernel // 2
    q = ratio.denominator
    first: list[int] = []
    taps: list[tuple[tuple[float, ...], ...]] = []
    for phase in range(q):
        found: dict[int, list[Fraction]] = {}
        for fine, back in _between((phase + Fraction(1, 2)) * ratio - Fraction(1, 2)):
            for j in range(kernel):
                at = (fine + j - half + Fraction(1, 2)) / ratio - Fraction(1, 2)
                for m, up in _between(at):
                    found.setdefault(m - phase, [Fraction(0)] * kernel)[j] += back * up
        offsets = sorted(found)
        first.append(offsets[0])
        taps.append(
            tuple(
                tuple(float(v) for v in found.get(m, [Fraction(0)] * kernel))
                for m in range(offsets[0], offsets[-1] + 1)
            )
        )
    edge: list[tuple[float, ...]] = []
    while True:
        centre = (len(edge) + Fraction(1, 2)) * ratio - Fraction(1, 2)
        row = [
            float(sum((w for fine, w in _between(centre) if fine + j - half < 0), Fraction(0)))
            for j in range(kernel)
        ]
        if not any(row):
            break
        edge.append(tuple(row))
    return AxisFold(tuple(first), tuple(taps), tuple(edge))


def _between(at: Fraction) -> list[tuple[int, Fraction]]:
    """The samples around a position and their bilinear weights; no sample of weight zero."""
    low = math.floor(at)
    part = at - low
    return [(i, w) for i, w in ((low, 1 - part), (low + 1, part)) if w]


def folded_branch(x: Tensor, weight: Tensor, groups: int, ratio: Fraction) -> Tensor:
    """The branch at ``ratio``, without bias, on the base grid.

    Args:
        x: ``[B, C_in, H, W]``; :func:`can_fold` must hold.
        weight: ``[C_out, C_in / groups, k_h, k_w]``, odd.
        groups: of the convolution.
        ratio: p/q above 1.

    Returns:
        ``[B, C_out, H, W]``, differentiable in ``x`` and ``weight``.
    """
    tall = fold_axis(ratio, weight.shape[2])
    wide = fold_axis(ratio, weight.shape[3])
    y = _interior(x, weight, groups, tall, wide)
    height, width = x.shape[-2:]
    rows, columns = _edges(tall, weight, 2), _edges(wide, weight, 3)
    r, c = len(tall.edge), len(wide.edge)
    # e ⊗ R along the top and bottom, for few rows each.
    for last in (False, True) if r else ():
        line = x[:, :, height - 1 if last else 0]
        kernels = _mirrored(rows, last) @ weight.permute(0, 1, 3, 2).flatten(0, 2).T  # r × (O I kw)
        strip = _line(line, torch.unflatten(kernels, 1, _shape(weight, 3)), groups, wide)
        part = y[:, :, height - r :] if last else y[:, :, :r]
        part -= strip
    # Z ⊗ e along the left and right: R ⊗ e less the corners e ⊗ e.
    for last in (False, True) if c else ():
        line = x[:, :, :, width - 1 if last else 0]
        mine = _mirrored(columns, last)
        kernels = mine @ weight.flatten(0, 2).T  # c × (O I kh)
        strip = _line(line, torch.unflatten(kernels, 1, _shape(weight, 2)), groups, tall)
        for bottom in (False, True) if r else ():
            corner = torch.einsum("rj,oijk,ck->rcoi", _mirrored(rows, bottom), weight, mine)
            dot = _pointwise(line[:, :, height - 1 if bottom else 0], corner, groups)
            part = strip[:, :, :, height - r :] if bottom else strip[:, :, :, :r]
            part -= dot.permute(0, 3, 2, 1)
        part = y[:, :, :, width - c :] if last else y[:, :, :, :c]
        part -= strip.transpose(2, 3)
    return y


def _interior(x: Tensor, weight: Tensor, groups: int, tall: AxisFold, wide: AxisFold) -> Tensor:
    """R ⊗ R: the phases' convolutions on the map continued by its edges, interleaved."""
    padded = F.pad(x, (wide.before, wide.after, tall.before, tall.after), mode="replicate")
    q = tall.phases
    height, width = x.shape[-2:]
    parts = {}
    for a in range(q):
        for b in range(q):
            rows, columns = _matrix(tall.taps[a], weight), _matrix(wide.taps[b], weight)
            kernel = torch.einsum("tj,oijk,uk->oitu", rows, weight, columns)
            top, left = tall.before + tall.first[a] + a, wide.before + wide.first[b] + b
            seen = padded[
                :,
                :,
                top : top + height - a + len(tall.taps[a]) - 1,
                left : left + width - b + len(wide.taps[b]) - 1,
            ]
            parts[a, b] = F.conv2d(seen, kernel.to(weight), None, q, 0, 1, groups)
    if q == 1:
        return parts[0, 0]
    y = x.new_empty((x.shape[0], weight.shape[0], height, width)).to(
        memory_format=torch.channels_last
    )
    for (a, b), part in parts.items():
        y[:, :, a::q, b::q] = part
    return y


def _line(line: Tensor, kernels: Tensor, groups: int, axis: AxisFold) -> Tensor:
    """R along one edge: ``[B, C, L]`` and kernels ``[n, O, I, k]`` → ``[B, O, n, L]``."""
    n, out = kernels.shape[:2]
    q, length = axis.phases, line.shape[-1]
    padded = F.pad(line, (axis.before, axis.after), mode="replicate")
    # Group-major outputs, so that every one of the n kernels of a group reads the group's channels.
    flat = torch.unflatten(kernels, 1, (groups, -1)).transpose(0, 1).flatten(0, 2)
    answer = line.new_empty((line.shape[0], n * out, length))
    for a in range(q):
        folded = torch.einsum("tj,oij->oit", _matrix(axis.taps[a], kernels), flat)
        start = axis.before + axis.first[a] + a
        seen = padded[:, :, start : start + length - a + len(axis.taps[a]) - 1]
        answer[:, :, a::q] = F.conv1d(seen, folded.to(kernels), None, q, 0, 1, groups)
    split = torch.unflatten(answer, 1, (groups, n, out // groups)).transpose(2, 3)
    return split.flatten(1, 2)


def _pointwise(point: Tensor, kernels: Tensor, groups: int) -> Tensor:
    """``[B, C]`` and ``[r, c, O, I]`` → ``[B, r, c, O]``: one number a corner output."""
    inputs = torch.unflatten(point, 1, (groups, -1))
    weights = torch.unflatten(kernels, 2, (groups, -1))
    return torch.einsum("bgi,rcgoi->brcgo", inputs, weights).flatten(3)


def _edges(axis: AxisFold, weight: Tensor, along: int) -> Tensor:
    return _matrix(axis.edge, weight).reshape(len(axis.edge), weight.shape[along])


def _mirrored(edge: Tensor, last: bool) -> Tensor:
    """The first border's coefficients, or the last border's: the same seen in a mirror."""
    return edge.flip(0, 1) if last else edge


def _matrix(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def _shape(weight: Tensor, along: int) -> tuple[int, int, int]:
    return weight.shape[0], weight.shape[1], weight.shape[along]
