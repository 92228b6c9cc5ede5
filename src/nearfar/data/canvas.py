"""Pixels of a decoded image read at the pixels of a canvas: Pillow's filters, at any position and scale.

Pillow resizes between whole numbers of pixels. An image at scale 0.37 covers a fraction of a pixel more or
less than that, so the canvas is read here at exact positions, by the same filters: the kernel is widened
where the image shrinks, and its weights are normalised over the pixels that there are, so that a white image
stays white up to its edge. A canvas pixel that the image covers in part mixes image and background by the
covered area.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

__all__ = ["FILTERS", "AxisMap", "Filter", "read_canvas", "read_canvases"]

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

#: Images with more pixels than this are read through sparse matrices: a product with a dense one would
#: multiply mostly by zeros.
_DENSE_LIMIT = 128 * 128


def _box(t: Tensor) -> Tensor:
    # A pixel centre on the box's edge belongs to one side, whatever rounding makes of its last bits.
    return ((t > -0.5 + 1e-9) & (t <= 0.5 + 1e-9)).to(t.dtype)


def _triangle(t: Tensor) -> Tensor:
    return (1 - t.abs()).clamp(min=0)


def _hamming(t: Tensor) -> Tensor:
    inside = (t.abs() < 1).to(t.dtype)
    return inside * torch.sinc(t) * (0.54 + 0.46 * torch.cos(math.pi * t))


def _keys(t: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = −½."""
    t = t.abs().clamp(max=2)  # where it is 0
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, far)


def _lanczos(t: Tensor) -> Tensor:
    inside = (t.abs() < 3).to(t.dtype)
    return inside * torch.sinc(t) * torch.sinc(t / 3)


#: Pillow's filters: the kernel as a function of the distance in pixels, and from which distance on it is 0.
#: ``nearest`` has none.
FILTERS: dict[str, tuple[Callable[[Tensor], Tensor], float] | None] = {
    "nearest": None,
    "box": (_box, 0.5),
    "bilinear": (_triangle, 1.0),
    "hamming": (_hamming, 1.0),
    "bicubic": (_keys, 2.0),
    "lanczos": (_lanczos, 3.0),
}


@dataclass(frozen=True)
class AxisMap:
    """Where an image lies along one axis of the canvas.

    Attributes:
        size: pixels of the image.
        canvas: pixels of the canvas.
        begin: canvas position of the image's edge before pixel 0; ``[B]`` float64, one an image.
        step: canvas pixels from an image pixel to the next; ``[B]`` float64.
    """

    size: int
    canvas: int
    begin: Tensor
    step: Tensor

    def equals(self, other: AxisMap) -> bool:
        """Whether images lie alike along both."""
        return (self.size, self.canvas) == (other.size, other.canvas) and all(
            torch.equal(a, b) for a, b in ((self.begin, other.begin), (self.step, other.step))
        )

    def coverage(self) -> Tensor:
        """The share of each canvas pixel that the image covers, ``[B, canvas]`` float64."""
        pixels = torch.arange(self.canvas, dtype=torch.float64)
        begin, end = self.begin[:, None], (self.begin + self.step * self.size)[:, None]
        return (torch.minimum(pixels + 1, end) - torch.maximum(pixels, begin)).clamp(0, 1)

    def weights(self, filter: Filter, dtype: torch.dtype) -> Tensor:  # noqa: A002 - Pillow's word
        """What each image pixel counts in each canvas pixel, ``[B, canvas, size]``; rows sum to 1.

        Computed in float64. Rows of canvas pixels that the image does not touch read its outermost pixel.
        """
        centres = torch.arange(self.canvas, dtype=torch.float64) + 0.5
        # In image pixels, its edge at 0.
        positions = ((centres - self.begin[:, None]) / self.step[:, None]).clamp(0, self.size)
        edge = positions.floor().clamp(max=self.size - 1).long()
        kernel_and_radius = FILTERS[filter]
        if kernel_and_radius is None:
            return torch.nn.functional.one_hot(edge, self.size).to(dtype)
        kernel, radius = kernel_and_radius
        width = (1 / self.step).clamp(min=1)[:, None, None]
        # The pixels within the kernel's reach, a few of all; those beside the image count nothing.
        reach = radius * width
        first = (positions[..., None] - reach).floor()
        taps = first + torch.arange(2 * math.ceil(float(reach.max())) + 1, dtype=torch.float64)
        tap_weights = kernel((taps + 0.5 - positions[..., None]) / width)
        tap_weights[(taps < 0) | (taps >= self.size)] = 0
        total = tap_weights.sum(-1, keepdim=True)
        # A box between two pixels may hold neither centre; beside the image only its edge is read.
        empty = (total[..., 0] == 0) | (self.coverage() == 0)
        weights = torch.zeros(*positions.shape, self.size, dtype=dtype)
        shares = (tap_weights / total).to(dtype)
        weights.scatter_add_(-1, taps.clamp(0, self.size - 1).long(), shares)
        weights[empty] = torch.nn.functional.one_hot(edge[empty], self.size).to(dtype)
        return weights


def read_canvas(image: Tensor, rows: AxisMap, columns: AxisMap, filter: Filter) -> Tensor:  # noqa: A002
    """One image, or several that lie alike, on a canvas that continues their edges.

    Args:
        image: ``[N, C, h, w]``, floating point.
        rows, columns: where they lie; of one entry.
        filter: how pixels between pixels are read.

    Returns:
        ``[N, C, canvas, canvas']``, not yet cut to the range of pixels.
    """
    (top, vertical), (left, horizontal) = (
        _used_weights(
            axis.size, axis.canvas, float(axis.begin), float(axis.step), filter, image.dtype
        )
        for axis in (rows, columns)
    )
    image = image[..., top : top + vertical.shape[1], left : left + horizontal.shape[1]]
    if image.shape[-2] * image.shape[-1] > _DENSE_LIMIT:
        return torch.stack([_read_sparse(one, vertical, horizontal) for one in image])
    return torch.matmul(torch.matmul(vertical, image), horizontal.mT)


def read_canvases(image: Tensor, rows: AxisMap, columns: AxisMap, filter: Filter) -> Tensor:  # noqa: A002
    """:func:`read_canvas` with a place of its own for every image of one size.

    Args:
        image: ``[N, C, h, w]``, floating point.
        rows, columns: where they lie; of N entries.
        filter: as above.
    """
    if image.shape[-2] * image.shape[-1] > _DENSE_LIMIT:
        parts = [
            read_canvas(image[i : i + 1], _entry(rows, i), _entry(columns, i), filter)
            for i in range(len(image))
        ]
        return (
            torch.cat(parts)
            if parts
            else image.new_zeros(0, image.shape[1], rows.canvas, columns.canvas)
        )
    vertical = rows.weights(filter, image.dtype)
    horizontal = vertical if columns.equals(rows) else columns.weights(filter, image.dtype)
    wide = torch.bmm(image.flatten(1, 2), horizontal.mT)
    return torch.matmul(vertical[:, None], wide.view(*image.shape[:3], columns.canvas))


def _entry(axis: AxisMap, i: int) -> AxisMap:
    return AxisMap(axis.size, axis.canvas, axis.begin[i : i + 1], axis.step[i : i + 1])


@lru_cache(maxsize=256)
def _used_weights(
    size: int,
    canvas: int,
    begin: float,
    step: float,
    filter: Filter,  # noqa: A002
    dtype: torch.dtype,
) -> tuple[int, Tensor]:
    """The first image pixel that counts at all, and the weights ``[canvas, n]`` of those from it on."""
    # Cached from call to call, so it must not be a tensor that only inference may use.
    with torch.inference_mode(False):
        ends = (torch.tensor([value], dtype=torch.float64) for value in (begin, step))
        weights = AxisMap(size, canvas, *ends).weights(filter, dtype)[0]
        used = weights.any(0).nonzero().flatten()
        first, last = int(used[0]), int(used[-1])
        return first, weights[:, first : last + 1].contiguous()


def _read_sparse(image: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """``[C, h, w]`` by one sparse matrix an axis."""
    channels, height, width = image.shape
    rows, columns = (scipy.sparse.csr_matrix(m.numpy()) for m in (vertical, horizontal))
    pixels = image.permute(1, 2, 0).reshape(height, width * channels).numpy()
    short = np.asarray(rows @ pixels).reshape(-1, width, channels)
    turned = np.ascontiguousarray(short.transpose(1, 0, 2)).reshape(width, -1)
    canvas = np.asarray(columns @ turned).reshape(columns.shape[0], rows.shape[0], channels)
    return torch.from_numpy(np.ascontiguousarray(canvas.transpose(2, 1, 0)))
