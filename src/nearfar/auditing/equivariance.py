"""The equivariance error: does a map follow when the image is rescaled?"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.pyramid import rescale_each

__all__ = ["map_errors", "relative_errors"]

#: Of what is compared, so much is left out along each edge.
EDGE = 1 / 8


def relative_errors(moved: Tensor, expected: Tensor) -> Tensor:
    r"""The relative difference of two batches of maps, an eighth of each side left out at every edge.

    .. math:: |\Phi(T_s x) - T_s \Phi(x)| / |T_s \Phi(x)|

    Args:
        moved: ``[B, C, H, W]``, what was computed from the rescaled image.
        expected: ``[B, C, H, W]``, what was computed from the image, rescaled.

    Returns:
        ``[B]``; NaN where nothing was expected but zeros.
    """
    rows, columns = (_inside(size) for size in moved.shape[-2:])
    difference = (moved - expected)[..., rows, columns].flatten(1)
    size = torch.linalg.vector_norm(expected[..., rows, columns].flatten(1), dim=1)
    errors: Tensor = torch.linalg.vector_norm(difference, dim=1) / size
    return errors


def map_errors(first: Tensor, moved: Tensor, scale: float, shown: float) -> Tensor | None:
    """:func:`relative_errors` of a layer's maps, where the content lies at this scale.

    Maps are taken to cover the canvas as a whole, so they are rescaled about their middle; the content
    is rescaled about the canvas's.

    Args:
        first: ``[B, C, h, w]``, the layer's maps of images at scale 1.
        moved: likewise at ``scale``.
        scale: of the images.
        shown: the share of the canvas's side that content known at scale 1 covers at ``scale``, at most 1.

    Returns:
        ``[B]``, or ``None`` where fewer than two samples a side are left to compare.

    Limits:
        The samples of a strided layer lie half a stride or less off the middle of what they cover:
        that shift counts as error.
    """
    factors = torch.full((len(first),), scale, dtype=torch.float64, device=first.device)
    expected = rescale_each(first, factors, kernel="bilinear", outside="border")
    for dim in (-2, -1):
        size = first.shape[dim]
        kept = 2 * (int(size * shown) // 2) + size % 2  # about the middle
        kept = kept if kept <= size * shown + 1e-9 else kept - 2
        if kept < 1 or kept - 2 * round(kept * EDGE) < 2:
            return None
        begin = (size - kept) // 2
        moved, expected = (x.narrow(dim, begin, kept) for x in (moved, expected))
    return relative_errors(moved, expected)


def _inside(size: int) -> slice:
    edge = round(size * EDGE)
    return slice(edge, size - edge)
