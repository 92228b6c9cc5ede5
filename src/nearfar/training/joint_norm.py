"""Batch norm over the images of all processes, on any device."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nearfar.errors import InputError

__all__ = ["JointBatchNorm", "join_batch_norms"]


class JointBatchNorm(_BatchNorm):
    """Batch norm as one process would do it that held the batch's images of all processes.

    ``y = (x − mean) / √(var + eps) · weight + bias``, mean and variance over all images and positions of all
    processes; running figures move alike everywhere. In evaluation it is ordinary batch norm. torch's
    ``SyncBatchNorm`` does the same on GPUs and refuses CPUs.

    A drop-in for the norm it is made of: same weights, buffers and names.

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
        if not self.training:
            normed = super().forward(x)
        else:
            normed, mean, var, count = _Normalise.apply(x, self.weight, self.bias, self.eps)
            self._remember(mean, var, count)
        answer: Tensor = self.act(self.drop(normed))
        return answer

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = self.momentum
        share = 1 / float(self.num_batches_tracked) if rate is None else rate
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = var * (count / (count - 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def join_batch_norms(network: nn.Module) -> None:
    """Puts :class:`JointBatchNorm` in the place of every batch norm, for training in several processes.

    Raises:
        InputError: a kind of batch norm that it cannot stand in for.
    """
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)
    made: dict[int, JointBatchNorm] = {}
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, _BatchNorm) or isinstance(child, JointBatchNorm):
                continue
            if type(child) not in plain:
                raise InputError(
                    f"a batch norm of the kind {type(child).__name__} cannot be joined over several "
                    f"processes; train with devices=1 and num_nodes=1"
                )
            # A norm used in several places stays one.
            setattr(parent, name, made.setdefault(id(child), JointBatchNorm(child)))


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        over = [d for d in range(x.dim()) if d != 1]
        # Half precision is too coarse for sums over a whole batch.
        wide = x if x.dtype == torch.float64 else x.float()
        mean, var, count = _joint_figures(wide, over)
        shape = (1, -1, *[1] * (x.dim() - 2))
        deviation = (var + eps).rsqrt()
        standard = (wide - mean.view(shape)) * deviation.view(shape)
        normed = standard if weight is None else standard * weight.view(shape)
        if bias is not None:
            normed = normed + bias.view(shape)
        ctx.save_for_backward(standard, deviation, weight, count)
        ctx.over, ctx.shape, ctx.biased = over, shape, bias is not None
        ctx.mark_non_differentiable(mean, var, count)
        return normed.to(x.dtype), mean, var, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        standard, deviation, weight, count = ctx.saved_tensors
        wide = grad.to(standard.dtype)
        sums = torch.stack([wide.sum(ctx.over), (wide * standard).sum(ctx.over)])
        # Gradients of weight and bias are this process's share: whoever trains adds them up.
        of_bias, of_weight = sums.clone()
        distributed.all_reduce(sums)
        level, slope = (s.view(ctx.shape) for s in sums / count)
        scale = deviation if weight is None else deviation * weight
        of_x = (wide - level - standard * slope) * scale.view(ctx.shape)
        return (
            of_x.to(grad.dtype),
            None if weight is None else of_weight.to(weight.dtype),
            of_bias.to(standard.dtype) if ctx.biased else None,
            None,
        )


def _joint_figures(x: Tensor, over: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and count over all processes, from each one's own (T. Chan et al. 1979)."""
    count = x.new_tensor(x.numel() // x.shape[1])
    var, mean = torch.var_mean(x, over, correction=0)
    mine = torch.cat([mean, var * count, count[None]])
    # Gathered, not summed up: the result does not depend on the order in which messages meet.
    every = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(every, mine)
    features = x.shape[1]
    counts = torch.stack([one[-1] for one in every])
    total = counts.sum()
    shares = (counts / total)[:, None]
    means = torch.stack([one[:features] for one in every])
    joint = (shares * means).sum(0)
    within = torch.stack([one[features:-1] for one in every]).sum(0)
    between = (counts[:, None] * (means - joint).square()).sum(0)
    return joint, (within + between) / total, total
