"""Where each output of a scale reads the tap maps: one axis, as short lists of coefficients.

A convolution is a sum over its taps, ``W * x = Σ_j shift_j (W_j x)``: each ``W_j`` mixes the channels of
one pixel, and shifts move pixels. Rescaling moves pixels too and leaves channels alone, so they commute:

    T⁻¹ (W * T x) = Σ_j (T⁻¹ shift_j T) (W_j x)

The **tap maps** ``W_j x`` do not depend on the scale. What does is the small matrix in brackets, separable
into rows and columns, with a few entries in each row. This module holds these entries, for one axis.
Alignment, padding, stride, dilation, borders and antialiasing are all in them, exactly.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nearfar.grid import Axis
from nearfar.resampling import reading_matrix

__all__ = ["Lists", "Taps", "restoring_taps", "scale_taps"]


@dataclass(frozen=True)
class Lists:
    """Rows of ``(tap, sample, coefficient)``: row r owns the entries ``start[r]`` to ``start[r + 1]``."""

    start: Tensor
    tap: Tensor
    sample: Tensor
    coefficient: Tensor

    @classmethod
    def sorted(cls, row: Tensor, rows: int, tap: Tensor, sample: Tensor, value: Tensor) -> Lists:
        """From entries in any order."""
        order = torch.argsort(row, stable=True)
        start = torch.zeros(rows + 1, dtype=torch.int64)
        start[1:] = torch.bincount(row, minlength=rows).cumsum(0)
        return cls(start, tap[order], sample[order], value[order])


@dataclass(frozen=True, eq=False)
class Taps:
    """The reading of one axis, for several scales at once.

    Attributes:
        scales: S.
        outputs: outputs of one scale.
        taps: taps of the kernel.
        samples: samples of a tap map.
        row: for each entry, which output it belongs to: ``scale · outputs + output``.
        tap, sample: which sample of which tap map it reads.
        coefficient: and times what; float64.
    """

    scales: int
    outputs: int
    taps: int
    samples: int
    row: Tensor
    tap: Tensor
    sample: Tensor
    coefficient: Tensor

    @classmethod
    def of(cls, matrices: Sequence[Tensor]) -> Taps:
        """From one ``[outputs, taps, samples]`` matrix a scale."""
        outputs, taps, samples = matrices[0].shape
        # Weights of 1e-17 are rounding, of positions that meet a sample exactly.
        entries = [(matrix.abs() > 1e-12).nonzero(as_tuple=True) for matrix in matrices]
        return cls(
            len(matrices),
            outputs,
            taps,
            samples,
            torch.cat([s * outputs + o for s, (o, _, _) in enumerate(entries)]),
            torch.cat([j for _, j, _ in entries]),
            torch.cat([m for _, _, m in entries]),
            torch.cat([matrix[e] for matrix, e in zip(matrices, entries, strict=True)]),
        )

    @property
    def cost(self) -> float:
        """Entries an output, all scales together."""
        return len(self.row) / max(1, self.outputs)

    def band(self, first: int, last: int) -> tuple[Taps, int, int]:
        """Outputs ``first`` to ``last`` alone, and the samples ``low`` to ``high`` that they read."""
        output = self.row % self.outputs
        inside = (output >= first) & (output < last)
        scale, sample = self.row[inside] // self.outputs, self.sample[inside]
        low, high = (int(sample.min()), int(sample.max()) + 1) if len(sample) else (0, 1)
        row = scale * (last - first) + output[inside] - first
        taps = Taps(
            self.scales,
            last - first,
            self.taps,
            high - low,
            row,
            self.tap[inside],
            sample - low,
            self.coefficient[inside],
        )
        return taps, low, high

    @cached_property
    def cache(self) -> dict[Hashable, Any]:
        """What an engine derived from these taps, for its next call."""
        return {}

    @cached_property
    def matrix(self) -> Tensor:
        """The same as a dense ``[S · outputs, taps, samples]`` matrix, float64."""
        dense = torch.zeros(
            self.scales * self.outputs, self.taps, self.samples, dtype=torch.float64
        )
        dense[self.row, self.tap, self.sample] = self.coefficient
        return dense

    @cached_property
    def forward(self) -> Lists:
        """For each output of each scale, what it reads."""
        rows = self.scales * self.outputs
        return Lists.sorted(self.row, rows, self.tap, self.sample, self.coefficient)

    @cached_property
    def backward(self) -> Lists:
        """For each sample of each tap map, ``tap · samples + sample``, the outputs that read it.

        ``tap`` holds the output's scale, and ``sample`` the output.
        """
        scale, output = self.row // self.outputs, self.row % self.outputs
        at = self.tap * self.samples + self.sample
        return Lists.sorted(at, self.taps * self.samples, scale, output, self.coefficient)

    @cached_property
    def backward_by_scale(self) -> Lists:
        """As :attr:`backward`, scale by scale, samples first: ``(scale · samples + sample) · taps + tap``."""
        scale, output = self.row // self.outputs, self.row % self.outputs
        at = (scale * self.samples + self.sample) * self.taps + self.tap
        rows = self.scales * self.samples * self.taps
        return Lists.sorted(at, rows, torch.zeros_like(output), output, self.coefficient)


def scale_taps(
    base: Axis,
    level: Axis,
    level_outputs: Axis,
    target: Axis,
    window: tuple[int, int, int, int],
    antialias: bool,
) -> Tensor:
    """``T⁻¹ shift_j T`` along one axis, ``[target.size, taps, base.size]``, float64.

    Args:
        base: the input's samples.
        level: the level's samples.
        level_outputs: where the convolution's outputs on the level lie.
        target: where its outputs on the base lie: the layer's outputs.
        window: (taps, stride, zeros before, dilation) of the convolution along this axis.
        antialias: average where the level is coarser than the base.
    """
    taps, stride, before, dilation = window
    enlarge = reading_matrix(base, level, antialias)
    restore = reading_matrix(level_outputs, target, False)
    matrices = torch.zeros(target.size, taps, base.size, dtype=torch.float64)
    for j in range(taps):
        at = torch.arange(level_outputs.size) * stride + j * dilation - before
        inside = (at >= 0) & (at < level.size)
        matrices[:, j] = restore[:, inside] @ enlarge[at[inside]]
    return matrices


def restoring_taps(level_outputs: Axis, target: Axis) -> Taps:
    """``T⁻¹`` alone, for the output of one level: a single tap."""
    return Taps.of([reading_matrix(level_outputs, target, False)[:, None]])
