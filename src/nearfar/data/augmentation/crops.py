"""Crops and flips of a whole batch at once, and the mean answer to ten crops."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.data.augmentation.draws import generator_of
from nearfar.errors import InputError

__all__ = ["TenCropped", "crop", "crop_flip", "draw_crop_flip", "ten_crop"]


def draw_crop_flip(
    count: int, pad: int, seed: int, epoch: int, places: int | None = None
) -> tuple[Tensor, Tensor]:
    """One epoch's random numbers for :func:`crop_flip`.

    Args:
        count: N, how many images there are.
        pad: the largest shift, in pixels.
        seed: the run's.
        epoch: from 0.
        places: from how many places along an axis to draw; default: all ``2 · pad + 1``.

    Returns:
        Where the crop begins in the padded image, ``[N, 2]`` (row, column) from 0 to ``2 · pad``; and
        whether it is mirrored, ``[N]`` booleans.
    """
    draw = generator_of(seed, epoch)
    starts = torch.randint(places or 2 * pad + 1, (count, 2), generator=draw)
    return starts, torch.rand(count, generator=draw) < 0.5


def crop_flip(images: Tensor, starts: Tensor, flips: Tensor, pad: int) -> Tensor:
    """Pads with zeros, cuts out a crop of the original size, and mirrors some left to right.

    Args:
        images: ``[B, C, H, W]``, on any device.
        starts: ``[B, 2]``, where each crop begins in the padded image.
        flips: ``[B]`` booleans.
        pad: in pixels, on all four sides.

    Returns:
        ``[B, C, H, W]``.
    """
    height, width = images.shape[-2:]
    return crop(F.pad(images, (pad, pad, pad, pad)), starts, flips, (int(height), int(width)))


def crop(images: Tensor, starts: Tensor, flips: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts a crop out of each image at a place of its own, and mirrors some left to right.

    Args:
        images: ``[B, C, H, W]``, on any device.
        starts: ``[B, 2]``, where each crop begins (row, column).
        flips: ``[B]`` booleans.
        size: height and width of the crops.

    Returns:
        ``[B, C, *size]``.
    """
    # All crops of all images, as a view; what is taken from it is copied in whole rows.
    crops = images.unfold(2, size[0], 1).unfold(3, size[1], 1)
    starts, flips = starts.to(images.device), flips.to(images.device)
    batch = torch.arange(len(images), device=images.device)
    cropped = crops[batch, :, starts[:, 0], starts[:, 1]]
    return torch.where(flips[:, None, None, None], cropped.flip(-1), cropped)


def ten_crop(images: Tensor, size: int) -> Tensor:
    """The four corners and the centre of each image, and their mirror images.

    Args:
        images: ``[B, C, H, W]``.
        size: side of the crops, in pixels.

    Returns:
        ``[B, 10, C, size, size]``: upper left, upper right, lower left, lower right, centre, then
        the same mirrored left to right.

    Raises:
        InputError: crops larger than the images.

    Source: A. Krizhevsky et al. 2012, section 4.1.
    """
    height, width = images.shape[-2:]
    if not 1 <= size <= min(height, width):
        raise InputError(
            f"ten_crop needs crops of 1 to {min(height, width)} pixels out of images of "
            f"{height}×{width}, got {size}"
        )
    down, right = height - size, width - size
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    five = torch.stack([images[..., i : i + size, j : j + size] for i, j in corners], dim=1)
    return torch.cat([five, five.flip(-1)], dim=1)


class TenCropped(nn.Module):
    """The mean of a network's answers to :func:`ten_crop` of every image.

    Images come larger than the network's own by a margin, such as
    ``ScaleDataModule.images("test", 1.0, margin=16)`` gives them.

    Args:
        network: ``[B, C, size, size]`` → ``[B, K]`` logits.
        size: side of the crops, in pixels.

    Source: A. Krizhevsky et al. 2012, section 4.1, who averaged the softmax's values.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """``[B, C, H, W]`` → ``[B, K]``: logarithms of the mean probabilities.

        Raises:
            InputError: images smaller than the crops.
        """
        crops = ten_crop(images, self.size)
        logits: Tensor = self.network(crops.flatten(0, 1))
        log_probabilities = logits.log_softmax(dim=1).view(*crops.shape[:2], logits.shape[1])
        return torch.logsumexp(log_probabilities, dim=1) - math.log(10)

    def extra_repr(self) -> str:
        """The size."""
        return f"size={self.size}"
