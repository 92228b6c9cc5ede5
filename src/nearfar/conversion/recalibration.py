"""New statistics for the batch norms of a converted network, from images without labels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nearfar.errors import InputError

__all__ = ["recalibrate"]


def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replaces the running statistics of all batch norms by those of some images.

    A converted network's maps are distributed otherwise than those that its batch norms were trained
    on. Weights stay, and so does everything but batch norms: dropout does not drop meanwhile.

    Args:
        network: changed in place; on any device.
        batches: images as the network takes them, ``[B, C, H, W]``, ``B`` of at least 2; every batch
            counts alike.

    Returns:
        How many batch norms there were. None is no error: networks with other norms need none.

    Raises:
        InputError: no batch, or one of a single image; the statistics then stay what they were.
    """
    norms = [
        m
        for m in network.modules()
        if isinstance(m, _BatchNorm) and m.track_running_stats and m.running_mean is not None
    ]
    if not norms:
        return 0
    modes = {module: module.training for module in network.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    before = [{k: b.clone() for k, b in norm.named_buffers()} for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
        norm.train()
    count = 0
    place = next(p for p in network.parameters())
    try:
        with torch.no_grad():
            for images in batches:
                if len(images) < 2:
                    raise InputError(
                        f"recalibration needs batches of at least 2 images, got {len(images)}"
                    )
                network(images.to(place.device, place.dtype))
                count += 1
        if not count:
            raise InputError("recalibration needs at least one batch of images, got none")
    except BaseException:
        for norm, buffers in zip(norms, before, strict=True):
            norm.load_state_dict(buffers, strict=False)
        raise
    finally:
        for module, training in modes.items():
            module.training = training
        for norm, momentum in momenta.items():
            norm.momentum = momentum
    return len(norms)
