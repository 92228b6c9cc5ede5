"""The optimiser and the learning rates of a FitSpec; SGD with momentum as the papers write it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from timm.optim import (  # type: ignore[attr-defined]
    create_optimizer_v2,
    get_optimizer_info,
    list_optimizers,
    param_groups_weight_decay,
)
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from nearfar.errors import InputError
from nearfar.training.fit_spec import FitSpec

__all__ = ["PaperSGD", "check_optimizer", "make_optimizer", "make_schedules"]

_FACTOR = 0.1
_PATIENCE = 10


class PaperSGD(Optimizer):
    """``v ← μ v − λ ε w − ε ∇``, then ``w ← w + v``.

    Each step keeps the rate ``ε`` it was made with. In ``torch.optim.SGD`` the rate stands outside, ``b ← μ b
    + ∇ + λ w``, ``w ← w − ε b``, so that a new rate rescales all steps that still roll on. Under a
    constant rate the two are the same, ``v = −ε b``. When the rate falls to a tenth, this one goes on
    for some ``1 / (1 − μ)`` steps at nearly its old speed; the other brakes at once.

    The velocity stands in ``state[w]["velocity"]``.

    Args:
        params: as of any optimiser.
        lr: the rate ε.
        momentum: μ.
        weight_decay: λ.

    Raises:
        InputError: a rate or decay below 0, or a momentum not from 0 to below 1.

    Source: A. Krizhevsky et al. 2012, section 5; A. Akbari, eqs. 6 and 7 (μ = 0.9, λ = 0.0005).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        if not (lr >= 0 and weight_decay >= 0 and 0 <= momentum < 1):
            raise InputError(
                f"PaperSGD needs lr and weight_decay of at least 0 and a momentum from 0 to below 1, "
                f"got lr={lr}, weight_decay={weight_decay}, momentum={momentum}"
            )
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, settings)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of all weights that have a gradient.

        Args:
            closure: computes the loss and the gradients anew; its loss is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(weight)
                velocity = state["velocity"]
                pull = weight.grad.add(weight, alpha=decay) if decay else weight.grad
                velocity.mul_(group["momentum"]).sub_(pull, alpha=rate)
                weight.add_(velocity)
        return loss


def check_optimizer(fit: FitSpec) -> None:
    """Refuses what no optimiser can be made of.

    Raises:
        InputError: a name that timm does not know, or a momentum for an optimiser without one.
    """
    if fit.optimizer == "velocity":
        return
    if fit.optimizer not in list_optimizers():
        raise InputError(
            f"no optimizer is named {fit.optimizer!r}; timm.optim.list_optimizers() lists them, and "
            f"'velocity' is one more"
        )
    if fit.momentum is not None and not get_optimizer_info(fit.optimizer).has_momentum:
        raise InputError(
            f"the optimizer {fit.optimizer!r} takes no momentum, got momentum={fit.momentum}; leave it "
            f"out, or take one that does, such as 'momentum' (SGD) or 'rmsprop'"
        )


def make_optimizer(model: nn.Module, fit: FitSpec) -> Optimizer:
    """timm's optimiser of that name, or :class:`PaperSGD`.

    Raises:
        InputError: the optimiser refuses the settings.
    """
    momentum: dict[str, Any] = {} if fit.momentum is None else {"momentum": fit.momentum}
    if fit.optimizer == "velocity":
        groups = param_groups_weight_decay(model, fit.weight_decay)
        parameters = model.parameters() if fit.decay_all else groups
        return PaperSGD(parameters, lr=fit.lr, weight_decay=fit.weight_decay, **momentum)
    try:
        optimizer: Optimizer = create_optimizer_v2(
            model,
            opt=fit.optimizer,
            lr=fit.lr,
            weight_decay=fit.weight_decay,
            filter_bias_and_bn=not fit.decay_all,
            **momentum,
        )
    except (TypeError, ValueError) as cause:
        raise InputError(f"the optimizer {fit.optimizer!r} cannot be made: {cause}") from cause
    return optimizer


def make_schedules(optimizer: Optimizer, fit: FitSpec, steps: int) -> list[dict[str, Any]]:
    """The learning rate over time, as Lightning takes it.

    Args:
        optimizer: whose rate.
        fit: the schedule.
        steps: how many steps the whole training has.
    """
    if fit.schedule == "onecycle":
        # It cycles the momentum too, unless that was given.
        rise = OneCycleLR(
            optimizer, max_lr=fit.lr, total_steps=steps, cycle_momentum=fit.momentum is None
        )
        return [{"scheduler": rise, "interval": "step"}]
    if fit.schedule == "plateau":
        factor = _FACTOR if fit.factor is None else fit.factor
        patience = _PATIENCE if fit.patience is None else fit.patience
        # Accuracy is 1 - error; with a threshold of 0 any new lowest error counts.
        fall = ReduceLROnPlateau(optimizer, "max", factor, patience, threshold=0.0)
        plateau = {"scheduler": fall, "interval": "epoch", "monitor": "validation/accuracy"}
        # SequentialLR cannot hold a plateau, but the two only ever multiply the rate.
        warm = [_epochwise(_warmup(optimizer, fit))] if fit.warmup_epochs else []
        return [*warm, plateau]
    after = _after_warmup(optimizer, fit)
    if fit.warmup_epochs:
        warm_first = [_warmup(optimizer, fit), after or ConstantLR(optimizer, factor=1.0)]
        after = SequentialLR(optimizer, warm_first, milestones=[fit.warmup_epochs])
    return [] if after is None else [_epochwise(after)]


def _after_warmup(optimizer: Optimizer, fit: FitSpec) -> LRScheduler | None:
    if fit.schedule == "steps":
        factor = _FACTOR if fit.factor is None else fit.factor
        return MultiStepLR(optimizer, [n - fit.warmup_epochs for n in fit.milestones], factor)
    if fit.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=fit.epochs - fit.warmup_epochs)
    return None


def _warmup(optimizer: Optimizer, fit: FitSpec) -> LRScheduler:
    assert fit.warmup_lr is not None
    return ConstantLR(optimizer, fit.warmup_lr / fit.lr, total_iters=fit.warmup_epochs)


def _epochwise(schedule: LRScheduler) -> dict[str, Any]:
    return {"scheduler": schedule, "interval": "epoch"}
