"""Batch norm over the images of all processes, on any device."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nearfar.errors import InputError

__all__ = ["SyncedBatchNorm", "sync_batch_norms"]

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)


class SyncedBatchNorm(_BatchNorm):
    """Batch norm with the mean and variance of the images of all processes.

    ``y = (x − mean) / √(var + eps) · weight + bias``, mean and variance over all images and positions of all
    processes; running statistics are the same everywhere. In evaluation it is ordinary batch norm.
    torch's ``SyncBatchNorm`` does the same on GPUs and refuses tensors on the CPU.

    Weights, buffers and their names are those of the norm that it replaces.

    Args:
        norm: an ordinary batch norm, whose parameters and buffers it takes over.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(norm, name))
        self.training = norm.training
        # timm's norms bring an activation along.
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of positions is fine."""

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, …]`` → the same shape."""
        normed = self._normalise(x) if self.training else super().forward(x)
        output: Tensor = self.act(self.drop(normed))
        return output

    def _normalise(self, x: Tensor) -> Tensor:
        # Half precision is too coarse for sums over a whole batch.
        wide = x if x.dtype == torch.float64 else x.float()
        mean, var, count = _joint_statistics(wide)
        self._update_running(mean.detach(), var.detach(), count)
        shape = (1, -1, *[1] * (x.dim() - 2))
        normed = (wide - mean.view(shape)) * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(x.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = var * (count / (count - 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def sync_batch_norms(network: nn.Module) -> None:
    """Replaces every batch norm by a :class:`SyncedBatchNorm`, for training in several processes.

    Raises:
        InputError: a kind of batch norm that it cannot stand in for.
    """
    replacements: dict[int, SyncedBatchNorm] = {}
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, _BatchNorm) or isinstance(child, SyncedBatchNorm):
                continue
            if type(child) not in _KINDS:
                raise InputError(
                    f"a batch norm of the kind {type(child).__name__} cannot be synchronised over several "
                    f"processes; train with devices=1 and num_nodes=1"
                )
            # A norm used in several places stays one.
            setattr(parent, name, replacements.setdefault(id(child), SyncedBatchNorm(child)))


class _Gather(torch.autograd.Function):
    """``[F]`` of each process → ``[P, F]`` in all of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        gathered = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
        distributed.all_gather(gathered, values)
        return torch.stack(gathered)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous()
        distributed.all_reduce(total)
        return total[distributed.get_rank()]


def _joint_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and count over all processes, from those of each (T. Chan et al. 1979)."""
    features = x.shape[1]
    count = x.new_tensor(x.numel() // features)
    var, mean = torch.var_mean(x, [d for d in range(x.dim()) if d != 1], correction=0)
    # Gathered, not summed: the result does not depend on the order in which messages arrive.
    rows = _Gather.apply(torch.cat([mean, var * count, count[None]]))
    means, squares, counts = rows[:, :features], rows[:, features:-1], rows[:, -1].detach()
    total = counts.sum()
    joint = ((counts / total)[:, None] * means).sum(0)
    between = (counts[:, None] * (means - joint).square()).sum(0)
    return joint, (squares.sum(0) + between) / total, total
