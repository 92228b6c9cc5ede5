"""New statistics for the batch norms of a converted network, from images without labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from nearfar.errors import InputError

__all__ = ["recalibrate"]


class _NormsInTraining(nn.Module):
    """A network of which training mode concerns the batch norms alone: dropout does not drop."""

    def __init__(self, network: nn.Module, norms: list[_BatchNorm]) -> None:
        super().__init__()
        self.network = network
        self.norms = norms

    def train(self, mode: bool = True) -> _NormsInTraining:
        super().train(False)
        for norm in self.norms:
            norm.train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replaces the running statistics of all batch norms by those of some images.

    A converted network's maps are distributed otherwise than those that its batch norms were trained
    on. Weights stay, and so does everything but batch norms: dropout does not drop meanwhile. It is
    :func:`torch.optim.swa_utils.update_bn`, undone where a batch cannot be used.

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
    try:
        update_bn(_checked(batches, next(network.parameters())), _NormsInTraining(network, norms))
    except BaseException:
        for norm, buffers in zip(norms, before, strict=True):
            norm.load_state_dict(buffers, strict=False)
            norm.momentum = momenta[norm]
        raise
    finally:
        for module, training in modes.items():
            module.training = training
    return len(norms)


def _checked(batches: Iterable[Tensor], like: Tensor) -> Iterator[Tensor]:
    """Batches on the device and in the type of number of a tensor; at least one, of at least two images."""
    count = 0
    for images in batches:
        if len(images) < 2:
            raise InputError(f"recalibration needs batches of at least 2 images, got {len(images)}")
        count += 1
        yield images.to(like.device, like.dtype)
    if not count:
        raise InputError("recalibration needs at least one batch of images, got none")
