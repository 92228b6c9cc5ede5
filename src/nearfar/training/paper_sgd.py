"""SGD with momentum as the papers write it: the learning rate inside the velocity."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch.optim import Optimizer

from nearfar.errors import InputError

__all__ = ["PaperSGD"]


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
