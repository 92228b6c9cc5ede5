"""Every image turned, slanted and stretched by amounts of its own each epoch; areas stay."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.data.augmentation.draws import generator_of
from nearfar.errors import InputError

__all__ = ["draw_warps", "warp"]

_KIND = 3


def draw_warps(
    count: int, rotate: float, shear: float, stretch: float, seed: int, epoch: int
) -> Tensor:
    """One epoch's random linear maps of the plane, all of determinant 1: areas stay what they are.

    .. math:: M = R(\\theta)\\,
        \\begin{pmatrix} 1 & \\tan\\varphi \\\\ 0 & 1 \\end{pmatrix}
        \\begin{pmatrix} q & 0 \\\\ 0 & 1/q \\end{pmatrix}

    with θ uniform within ± ``rotate``, φ within ± ``shear``, and q log-uniform from 1 / ``stretch`` to
    ``stretch``.

    Args:
        count: N, how many images there are.
        rotate: the largest angle of R, in degrees.
        shear: the largest slant of upright lines, in degrees, below 90.
        stretch: how many times as wide an image becomes at most, and so many times less high; at least 1.
        seed: the run's.
        epoch: from 0.

    Returns:
        ``[N, 2, 2]``, float64; acts on (x, y), x to the right, y down.

    Raises:
        InputError: an angle below 0, a slant of 90 degrees or more, or a ``stretch`` below 1.
    """
    if not (0 <= rotate <= 180 and 0 <= shear < 90 and 1 <= stretch < math.inf):
        raise InputError(
            f"draw_warps needs rotate from 0 to 180 degrees, shear from 0 to below 90 degrees and stretch "
            f"of at least 1, got rotate={rotate}, shear={shear}, stretch={stretch}"
        )
    draw = torch.rand(count, 3, generator=generator_of(seed, epoch, _KIND), dtype=torch.float64)
    turn, slant, q = (2 * draw - 1).unbind(1)
    turn, slant = turn * math.radians(rotate), slant * math.radians(shear)
    q = torch.exp(q * math.log(stretch))
    zero, one = torch.zeros_like(q), torch.ones_like(q)

    def rows(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return torch.stack([torch.stack([a, b], 1), torch.stack([c, d], 1)], 1)

    turned = rows(turn.cos(), -turn.sin(), turn.sin(), turn.cos())
    return turned @ rows(one, slant.tan(), zero, one) @ rows(q, zero, zero, 1 / q)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Each image under a linear map of its own, about its middle; bicubic, the edge repeated outside.

    Args:
        images: ``[B, C, H, W]``, floating point, values from 0 to 1, on any device.
        matrices: ``[B, 2, 2]``, where a point (x, y) goes, in pixels from the middle, x to the right
            and y down.

    Returns:
        ``[B, C, H, W]``, values from 0 to 1.

    Raises:
        InputError: images of another rank or of integers, not one matrix an image, or one without an
            inverse.

    Limits:
        Nothing is averaged: a map that makes images much smaller along any direction aliases (shrinking
        evenly is :func:`nearfar.pyramid.rescale_each`).
    """
    if images.dim() != 4 or not images.is_floating_point():
        raise InputError(
            f"warp needs images [B, C, H, W] of floating point, got {images.dtype} of shape "
            f"{tuple(images.shape)}"
        )
    if matrices.shape != (len(images), 2, 2):
        raise InputError(
            f"warp needs a 2×2 matrix for each of the {len(images)} images, got matrices of shape "
            f"{tuple(matrices.shape)}"
        )
    if not len(images):
        return images
    back, singular = torch.linalg.inv_ex(matrices.double().cpu())
    if singular.any():
        raise InputError(
            f"warp needs maps that can be undone, and matrix {int(singular.nonzero()[0])} has no inverse"
        )
    height, width = images.shape[-2:]
    # Where each sample of the result is read; grid_sample counts in half widths and half heights.
    half = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    # Half precision is too coarse for places.
    fine = images if images.dtype == torch.float64 else images.float()
    theta = F.pad(back * half / half[:, None], (0, 1)).to(fine)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    read = F.grid_sample(fine, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return read.clamp(0, 1).to(images.dtype)
