"""Colours moved along the directions in which they vary most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.data.augmentation.draws import generator_of
from nearfar.errors import InputError

__all__ = ["Colours", "draw_colours", "shift_colours"]

_KIND = 2


@dataclass(frozen=True)
class Colours:
    """The principal components of all pixels' colours, of values from 0 to 1.

    Attributes:
        variances: eigenvalues of the covariance of red, green and blue, largest first.
        directions: its eigenvectors, in that order, each of length 1 with a positive sum.
    """

    variances: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, batches: Iterable[Tensor]) -> Colours:
        """Of all pixels of ``[B, 3, H, W]`` images that come in batches.

        Raises:
            InputError: images of another number of channels.
        """
        count, total, products = 0, torch.zeros(3).double(), torch.zeros(3, 3).double()
        for images in batches:
            if images.shape[1] != 3:
                raise InputError(
                    f"colours can only be moved in images of 3 channels, got {images.shape[1]}; leave "
                    f"data.colour at 0"
                )
            values = images.double().transpose(0, 1).flatten(1)
            count += values.shape[1]
            total += values.sum(1)
            products += values @ values.mT
        mean = total / count
        components = torch.linalg.eigh(products / count - mean[:, None] * mean)
        directions = components.eigenvectors.mT.flip(0)
        directions = directions * torch.where(directions.sum(1) < 0, -1.0, 1.0)[:, None]
        return cls(
            tuple(components.eigenvalues.flip(0).clamp(min=0).tolist()),
            tuple(tuple(row) for row in directions.tolist()),
        )


def draw_colours(count: int, deviation: float, seed: int, epoch: int) -> Tensor:
    """One epoch's random numbers for :func:`shift_colours`: ``[N, 3]``, normal, of mean 0.

    Args:
        count: N, how many images there are.
        deviation: their standard deviation; the source took 0.1.
        seed: the run's.
        epoch: from 0.
    """
    return deviation * torch.randn(count, 3, generator=generator_of(seed, epoch, _KIND))


def shift_colours(images: Tensor, amounts: Tensor, colours: Colours) -> Tensor:
    """Adds ``Σ αᵢ λᵢ pᵢ`` to every pixel of an image: another light of another strength and colour.

    Args:
        images: ``[B, 3, H, W]``, on any device, values from 0 to 1. The result is not cut to that.
        amounts: ``[B, 3]``, each image's α.
        colours: λ and p.

    Source: A. Krizhevsky et al. 2012, section 4.1.
    """
    variances = torch.tensor(colours.variances, device=images.device, dtype=images.dtype)
    directions = torch.tensor(colours.directions, device=images.device, dtype=images.dtype)
    return images + ((amounts.to(images) * variances) @ directions)[:, :, None, None]
