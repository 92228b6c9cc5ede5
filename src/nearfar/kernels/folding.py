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

__all__ = ["AxisFold", "Folding", "can_fold", "fold_axis"]

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


class Folding:
    """The branch at one ratio, without bias, on the base grid, for maps of one size.

    Interior and borders are apart, because the interior is worth doing in chunks of the batch and the
    borders, which are small, at once. ``interior(x)`` less ``borders(lines(x))`` is the branch.

    Args:
        ratio: p/q above 1; :func:`can_fold` must hold.
        size: (H, W) of the base map.
        kernel: (k_h, k_w) of the convolution.
        groups: of the convolution.
    """

    def __init__(
        self, ratio: Fraction, size: tuple[int, int], kernel: tuple[int, int], groups: int
    ) -> None:
        self.tall, self.wide = fold_axis(ratio, kernel[0]), fold_axis(ratio, kernel[1])
        self.size, self.groups = size, groups
        q = self.tall.phases
        self.phases = [(a, b) for a in range(q) for b in range(q)]
        self.padding = (self.wide.before, self.wide.after, self.tall.before, self.tall.after)

    def kernels(self, weight: Tensor) -> list[Tensor]:
        """``E_a W E_bᵀ`` for each phase; differentiable."""
        return [
            torch.einsum(
                "tj,oijk,uk->oitu",
                _matrix(self.tall.taps[a], weight),
                weight,
                _matrix(self.wide.taps[b], weight),
            ).contiguous()
            for a, b in self.phases
        ]

    def padded(self, x: Tensor) -> Tensor:
        """``x`` continued by its edge samples as far as the taps reach."""
        return F.pad(x, self.padding, mode="replicate")

    def window(self, padded: Tensor, phase: int) -> Tensor:
        """What one phase's convolution reads of the padded map."""
        a, b = self.phases[phase]
        top = self.tall.before + self.tall.first[a] + a
        left = self.wide.before + self.wide.first[b] + b
        bottom = top + self.size[0] - a + len(self.tall.taps[a]) - 1
        right = left + self.size[1] - b + len(self.wide.taps[b]) - 1
        return padded[:, :, top:bottom, left:right]

    def interior(self, x: Tensor, kernels: list[Tensor]) -> Tensor:
        """R ⊗ R: the phases' convolutions, interleaved."""
        padded, q = self.padded(x), self.tall.phases
        parts = [
            F.conv2d(self.window(padded, i), kernel, None, q, 0, 1, self.groups)
            for i, kernel in enumerate(kernels)
        ]
        if q == 1:
            return parts[0]
        y = torch.empty(
            (x.shape[0], kernels[0].shape[0], *self.size),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        for (a, b), part in zip(self.phases, parts, strict=True):
            y[:, :, a::q, b::q] = part
        return y

    def lines(self, x: Tensor) -> list[Tensor]:
        """The edge samples: top and bottom row ``[B, C, W]``, left and right column ``[B, C, H]``."""
        return [x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]]

    def bands(self, y: Tensor) -> list[Tensor]:
        """Where the borders' corrections belong: the first and last rows, then columns."""
        r, c = len(self.tall.edge), len(self.wide.edge)
        height, width = self.size
        return [y[:, :, :r], y[:, :, height - r :], y[:, :, :, :c], y[:, :, :, width - c :]]

    def borders(self, lines: list[Tensor], weight: Tensor) -> list[Tensor]:
        """What the interior has too much of, in each of the :meth:`bands`; differentiable.

        ``e ⊗ R`` for rows, ``(R − e) ⊗ e`` for columns.
        """
        r, c = len(self.tall.edge), len(self.wide.edge)
        rows = _matrix(self.tall.edge, weight).reshape(r, weight.shape[2])
        columns = _matrix(self.wide.edge, weight).reshape(c, weight.shape[3])
        top, bottom, left, right = lines
        height = self.size[0]
        found = []
        for line, mine in ((top, rows), (bottom, _mirror(rows))):
            kernels = torch.einsum("rj,oijk->roik", mine, weight)
            found.append(_line(line, kernels, self.groups, self.wide).transpose(1, 2))
        for line, mine in ((left, columns), (right, _mirror(columns))):
            kernels = torch.einsum("ck,oijk->coij", mine, weight)
            strip = _line(line, kernels, self.groups, self.tall)  # [B, c, O, H]
            for end, theirs in ((0, rows), (height - 1, _mirror(rows))):
                corner = torch.einsum("rj,coij->rcoi", theirs, kernels)
                dot = _pointwise(line[:, :, end], corner, self.groups)  # [B, r, c, O]
                zeros = dot.new_zeros((dot.shape[0], height - r, *dot.shape[2:]))
                whole = torch.cat([dot, zeros] if end == 0 else [zeros, dot], dim=1)
                strip = strip - whole.permute(0, 2, 3, 1)
            found.append(strip.permute(0, 2, 3, 1))
        return found


def _line(line: Tensor, kernels: Tensor, groups: int, axis: AxisFold) -> Tensor:
    """R along one edge: ``[B, C, L]`` and kernels ``[n, O, I, k]`` → ``[B, n, O, L]``."""
    n, out = kernels.shape[:2]
    q, length = axis.phases, line.shape[-1]
    if n == 0:
        return line.new_zeros((line.shape[0], 0, out, length))
    padded = F.pad(line, (axis.before, axis.after), mode="replicate")
    # Group-major outputs, so that every one of the n kernels of a group reads the group's channels.
    flat = torch.unflatten(kernels, 1, (groups, -1)).transpose(0, 1).flatten(0, 2)
    parts = []
    for a in range(q):
        folded = torch.einsum("tj,oij->oit", _matrix(axis.taps[a], kernels), flat)
        start = axis.before + axis.first[a] + a
        seen = padded[:, :, start : start + length - a + len(axis.taps[a]) - 1]
        parts.append(F.conv1d(seen, folded, None, q, 0, 1, groups))
    answer = torch.stack(parts, dim=-1).flatten(-2) if q > 1 else parts[0]
    return torch.unflatten(answer, 1, (groups, n, out // groups)).transpose(1, 2).flatten(2, 3)


def _pointwise(point: Tensor, kernels: Tensor, groups: int) -> Tensor:
    """``[B, C]`` and ``[r, c, O, I]`` → ``[B, r, c, O]``: one number a corner output."""
    inputs = torch.unflatten(point, 1, (groups, -1))
    weights = torch.unflatten(kernels, 2, (groups, -1))
    return torch.einsum("bgi,rcgoi->brcgo", inputs, weights).flatten(3)


def _mirror(edge: Tensor) -> Tensor:
    """The coefficients at the other border: the same, seen in a mirror."""
    return edge.flip(0, 1)


def _matrix(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=like.dtype, device=like.device)
