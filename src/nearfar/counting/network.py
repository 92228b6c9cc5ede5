"""Counts a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nearfar.counting.table import Count
from nearfar.counting.tracing import Tracer
from nearfar.errors import InputError
from nearfar.reference import reference_only

__all__ = ["count", "count_on"]


def count(
    model: nn.Module, input_size: Sequence[int] = (3, 224, 224), *, biases: bool = False
) -> Count:
    """Counts a network layer by layer for one image: units, connections, weights and more.

    Rows are for convolutions, dense layers, pools, nearfar's own layers, products of two maps (as in
    attention) and any other module that owns parameters.

    Every figure is defined in :class:`Row`. nearfar's own layers are one row each, and have the
    connections of their convolutions at every scale, since a unit stands for several. Receptive fields
    disregard borders, and statistics that a norm takes; behind a squeeze-and-excitation gate everything
    depends on the whole image. ``docs/counting.md`` has the conventions in full.

    Args:
        model: any network that takes images ``[B, C, H, W]``; on the ``meta`` device too, where
            counting needs neither time nor memory. It is run once in evaluation mode; its mode, its
            hooks and the random state are then as they were.
        input_size: ``(C, H, W)`` of one image.
        biases: count biases as weights, and each as a connection to a unit that is always 1.

    Returns:
        The rows and their totals.

    Raises:
        InputError: a size that is none, or that the network does not take.

    Source: "Convolutional Neural Networks & Image Classification" (COMS 4995), the slides on the size
    of a convolutional net; with ``biases``, Y. LeCun et al. 1998, §II.B.
    """
    channels, height, width = _checked(input_size)
    like = next((t for t in model.parameters() if t.is_floating_point()), None)
    dtype = torch.get_default_dtype() if like is None else like.dtype
    device = next((t.device for t in [*model.parameters(), *model.buffers()]), None)
    return count_on(model, torch.zeros(channels, height, width, dtype=dtype, device=device), biases)


def count_on(model: nn.Module, image: Tensor, biases: bool = False) -> Count:
    """:func:`count` with the image itself, ``[C, H, W]``, for a network to which its values matter.

    Raises:
        InputError: the network does not take the image.
    """
    channels, height, width = _checked(tuple(image.shape))
    with _undisturbed(model, image.device), torch.inference_mode(), reference_only():
        batch = image.detach().clone().unsqueeze(0)
        tracer = Tracer(model, batch, biases)
        try:
            with tracer.watching(), tracer:
                model(batch)
        except (InputError, Warning):
            raise
        except Exception as cause:
            if tracer.at_work:
                raise
            raise InputError(
                f"{type(model).__name__} does not take an image of {channels}×{height}×{width}: "
                f"{cause}; give the size that it is made for, as (channels, height, width)"
            ) from cause
    return Count(type(model).__name__, (channels, height, width), biases, tracer.rows())


def _checked(size: Sequence[int]) -> tuple[int, int, int]:
    sequence = isinstance(size, Sequence) and not isinstance(size, str)
    if not sequence or len(size) != 3 or any(type(n) is not int or n < 1 for n in size):
        raise InputError(
            f"input_size must be (channels, height, width), three whole numbers of at least 1 such as "
            f"(3, 224, 224), got {size!r}"
        )
    return size[0], size[1], size[2]


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode, and afterwards every module's own mode and the random state as before."""
    modes = {module: module.training for module in model.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    # The fast path of torch's own attention is one operator that hides its products.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # What else attends in one operator does it by its definition.
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            sdpa_kernel(SDPBackend.MATH),
        ):
            for module in modes:  # exported programs refuse eval()
                module.training = False
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in modes.items():
            module.training = mode
