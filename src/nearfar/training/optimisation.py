"""The optimiser and the learning rates of a FitSpec."""

from __future__ import annotations

from typing import Any

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
from nearfar.training.paper_sgd import PaperSGD

__all__ = ["check_optimizer", "make_optimizer", "make_schedules"]

_FACTOR = 0.1
_PATIENCE = 10


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
