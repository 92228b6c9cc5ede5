"""Slow second definitions of the operators, in loops and numpy, written from the formulas alone.

Nothing of nearfar is imported here, so that a mistake in it cannot hide in its own test.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np


def level_size(size, scale):
    exact = Fraction(str(float(scale))).limit_denominator(10_000) * size
    return math.floor(exact + Fraction(1, 2))


def read_axis(values, centre, width):
    """The triangle-weighted mean of samples around position ``centre`` (in sample indices)."""
    centre = min(max(centre, 0.0), len(values) - 1.0)
    total, weight = 0.0, 0.0
    for i, value in enumerate(values):
        w = max(0.0, 1.0 - abs(centre - i) / width)
        total, weight = total + w * value, weight + w
    return total / weight


def read_map(image, rows, columns, row_width, column_width):
    """Reads ``image`` [H, W] at positions ``rows`` × ``columns``."""
    tall = np.array(
        [[read_axis(image[:, x], r, row_width) for x in range(image.shape[1])] for r in rows]
    )
    return np.array(
        [[read_axis(tall[y], c, column_width) for c in columns] for y in range(len(rows))]
    )


def resize(image, height, width, antialias):
    """Sample j of n over m stands at (j + 1/2) m / n - 1/2."""

    def positions(n, m):
        return [(j + 0.5) * m / n - 0.5 for j in range(n)]

    def breadth(n, m):
        return max(1.0, m / n) if antialias else 1.0

    old_height, old_width = image.shape
    return read_map(
        image,
        positions(height, old_height),
        positions(width, old_width),
        breadth(height, old_height),
        breadth(width, old_width),
    )


def convolve(x, weight, bias, stride, padding, dilation, groups):
    """x [C, H, W], weight [O, C/g, kh, kw], padding ((top, bottom), (left, right)) of zeros."""
    out_channels, depth, kh, kw = weight.shape
    padded = np.pad(x, ((0, 0), *padding))
    reach = (dilation[0] * (kh - 1) + 1, dilation[1] * (kw - 1) + 1)
    height = (padded.shape[1] - reach[0]) // stride[0] + 1
    width = (padded.shape[2] - reach[1]) // stride[1] + 1
    y = np.zeros((out_channels, height, width))
    for o in range(out_channels):
        first = (o // (out_channels // groups)) * depth
        for i in range(height):
            for j in range(width):
                total = 0.0 if bias is None else bias[o]
                for c in range(depth):
                    for a in range(kh):
                        for b in range(kw):
                            total += (
                                weight[o, c, a, b]
                                * padded[
                                    first + c,
                                    i * stride[0] + a * dilation[0],
                                    j * stride[1] + b * dilation[1],
                                ]
                            )
                y[o, i, j] = total
    return y


def level_positions(count, size, level, kernel, stride, before, dilation):
    """Where the base's outputs lie among a level's outputs, by receptive-field centres.

    Base output i looks at the image point  c = i s - p + d (k - 1) / 2 + 1/2  (pixel edges at whole
    numbers). On the level that point is c · level / size; which output has its centre there?
    """
    half = dilation * (kernel - 1) / 2
    result = []
    for i in range(count):
        point = i * stride - before + half + 0.5
        on_level = point * level / size - 0.5
        result.append((on_level + before - half) / stride)
    return result


def si_convolve(x, weight, bias, scales, stride, padding, dilation, groups, antialias):
    """x [C, H, W] → the maximum over scales, and the index of the first scale that reaches it."""
    _, height, width = x.shape
    kh, kw = weight.shape[2:]
    (top, bottom), (left, right) = padding
    rows = (height + top + bottom - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    columns = (width + left + right - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    outputs = []
    for scale in scales:
        h, w = level_size(height, scale), level_size(width, scale)
        level = np.stack([resize(channel, h, w, antialias) for channel in x])
        y = convolve(level, weight, bias, stride, padding, dilation, groups)
        at = (
            level_positions(rows, height, h, kh, stride[0], top, dilation[0]),
            level_positions(columns, width, w, kw, stride[1], left, dilation[1]),
        )
        outputs.append(np.stack([read_map(channel, *at, 1.0, 1.0) for channel in y]))
    stacked = np.stack(outputs)
    return stacked.max(axis=0), stacked.argmax(axis=0), stacked
