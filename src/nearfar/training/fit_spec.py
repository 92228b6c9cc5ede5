"""FitSpec: how long and how to train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from nearfar.errors import InputError

__all__ = ["FitSpec"]

Schedule = Literal["onecycle", "constant", "steps", "plateau", "cosine"]
Init = Literal["default", "he", "normal"]
Keep = Literal["best", "accuracy", "last"]
NotFinite = Literal["stop", "skip"]


@dataclass(frozen=True)
class FitSpec:
    """How long and how to train.

    Args:
        epochs: passes over the training images.
        batch_size: images a step, over all processes.
        lr: learning rate (with ``onecycle``: its peak).
        weight_decay: decay of all weights but biases and norms.
        optimizer: any name that ``timm.optim`` knows. There ``momentum`` is SGD with momentum, and
            ``sgd`` is SGD with Nesterov's. Or ``velocity``: SGD with momentum as the papers write it,
            which differs from ``momentum`` where the rate changes (:class:`~nearfar.training.PaperSGD`).
        schedule: the rate over time. ``onecycle``: rise over the first 30 % of the steps, then fall to
            zero. ``constant``. ``steps``: times ``factor`` after each of ``milestones``. ``plateau``:
            times ``factor`` when the validation error has stopped falling. ``cosine``: from ``lr``
            towards zero, half a cosine, an epoch at a time.
        momentum: of optimisers that have one, from 0 to below 1; default: the optimiser's own (with
            ``onecycle``: 0.85 to 0.95, against the rate; a momentum given stays as it is).
        decay_all: decay biases and norms too, as the papers' update rules do.
        milestones: with ``steps``, and only there: after how many epochs the rate falls, ascending.
        factor: with ``steps`` and ``plateau``, and only there: default 0.1.
        patience: with ``plateau``, and only there: how many epochs in a row may end without a new
            lowest validation error; after one more the rate falls. Default 10.
        warmup_epochs: first epochs, which are trained at ``warmup_lr``; ``milestones`` count them in,
            ``cosine`` begins after them. Not with ``onecycle``, which has its own.
        warmup_lr: the constant rate of the first epochs; needed with ``warmup_epochs``, and only there.
        accumulate: how many batches make one update of the weights: the update of a batch that many
            times as large, in the memory of one. Batch norm still sees each batch alone.
        ema: decay d, between 0 and 1, of a running mean of the weights (and batch norm's figures), ``mean ←
            d · mean + (1 − d) · weights`` after each update, from the first weights on. The mean is
            what is validated and kept. Default: none.
        clip: gradients whose norm over all weights is above this are scaled down to it. Default: none.
        mixup: α > 0 mixes each batch with its reverse, images and labels, in shares drawn from
            Beta(α, α) (H. Zhang et al. 2018). With ``cutmix`` too, each batch gets one of the two by the
            toss of a coin. Default 0: none.
        cutmix: α > 0 pastes a rectangle out of the reversed batch instead (S. Yun et al. 2019).
        label_smoothing: share of the label that is spread evenly over all classes, from 0 to below 1.
        init: first weights of convolutions and dense layers. ``default``: the network's own. ``he``:
            N(0, 2 / fan-in), also called MSR (K. He et al. 2015, eq. 10). ``normal``: N(0, 0.01²) (A.
            Krizhevsky et al. 2012, section 5). Biases 0 with both.
        keep: whose weights are kept. ``best``: of the epoch with the smallest validation loss.
            ``accuracy``: with the highest validation accuracy, the first of equals. ``last``: of the last.
        not_finite: what to do where a batch's loss is not a finite number. ``stop``: the run ends before its
            weights change; which images it was stands in ``not-finite.json``. ``skip``: the batch is left
            out, which is logged (in one process only).

    Raises:
        InputError: a number out of range, or an argument without effect.
    """

    epochs: int = 15
    batch_size: int = 64
    lr: float = 0.01
    weight_decay: float = 0.05
    optimizer: str = "adamw"
    schedule: Schedule = "onecycle"
    momentum: float | None = None
    decay_all: bool = False
    milestones: tuple[int, ...] = ()
    factor: float | None = None
    patience: int | None = None
    warmup_epochs: int = 0
    warmup_lr: float | None = None
    accumulate: int = 1
    ema: float | None = None
    clip: float | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    init: Init = "default"
    keep: Keep = "best"
    not_finite: NotFinite = "stop"

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        choice_fields = (
            ("schedule", Schedule),
            ("init", Init),
            ("keep", Keep),
            ("not_finite", NotFinite),
        )
        for name, words in choice_fields:
            if getattr(self, name) not in get_args(words):
                choices = ", ".join(repr(word) for word in get_args(words))
                raise InputError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        whole = all(isinstance(n, int) and n >= 1 for n in (self.epochs, self.batch_size))
        if not whole or not 0 < self.lr < math.inf or not 0 <= self.weight_decay < math.inf:
            raise InputError(
                f"fit needs epochs >= 1, batch_size >= 1, lr > 0 and weight_decay >= 0, got "
                f"epochs={self.epochs}, batch_size={self.batch_size}, lr={self.lr}, "
                f"weight_decay={self.weight_decay}"
            )
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise InputError(f"momentum must be from 0 to below 1, got {self.momentum}")
        if self.decay_all and not self.weight_decay:
            raise InputError("decay_all has no effect with weight_decay=0; leave it out")
        self._check_updates()
        self._check_warmup()
        self._check_milestones()
        self._check_falls()

    def _check_updates(self) -> None:
        if not isinstance(self.accumulate, int) or self.accumulate < 1:
            raise InputError(f"accumulate must be at least 1 batch, got {self.accumulate}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise InputError(
                f"ema is a decay between 0 and 1, such as 0.999, got {self.ema}; leave it out for none"
            )
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise InputError(f"clip is a norm above 0, got {self.clip}; leave it out for none")
        if not (0 <= self.mixup < math.inf and 0 <= self.cutmix < math.inf):
            raise InputError(
                f"mixup and cutmix are at least 0, got mixup={self.mixup}, cutmix={self.cutmix}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"label_smoothing must be from 0 to below 1, got {self.label_smoothing}"
            )

    def _check_warmup(self) -> None:
        if self.warmup_epochs == 0 and self.warmup_lr is None:
            return
        rate = self.warmup_lr
        fits = 0 < self.warmup_epochs < self.epochs and rate is not None and 0 < rate < math.inf
        if not fits or self.schedule == "onecycle":
            raise InputError(
                f"a warm-up needs a warmup_lr above 0, warmup_epochs from 1 to below epochs, and a "
                f"schedule other than 'onecycle', got warmup_lr={rate}, "
                f"warmup_epochs={self.warmup_epochs}, epochs={self.epochs} and "
                f"schedule={self.schedule!r}"
            )

    def _check_milestones(self) -> None:
        if self.schedule != "steps":
            if self.milestones:
                raise InputError(
                    f"milestones belong to schedule='steps', got milestones={self.milestones} with "
                    f"schedule={self.schedule!r}; leave them out"
                )
            return
        whole = all(isinstance(n, int) for n in self.milestones)
        ascending = list(self.milestones) == sorted(set(self.milestones))
        inside = all(self.warmup_epochs < n < self.epochs for n in self.milestones)
        if not self.milestones or not (whole and ascending and inside):
            raise InputError(
                f"schedule='steps' needs milestones, whole numbers of epochs, ascending, above "
                f"warmup_epochs={self.warmup_epochs} and below epochs={self.epochs}, got "
                f"{self.milestones}"
            )

    def _check_falls(self) -> None:
        factor, patience = self.factor, self.patience
        falls = self.schedule in ("steps", "plateau")
        if factor is not None and not (falls and 0 < factor < 1):
            raise InputError(
                f"factor belongs to schedule='steps' and 'plateau' and lies between 0 and 1, got "
                f"factor={factor} with schedule={self.schedule!r}"
            )
        if patience is not None and not (self.schedule == "plateau" and patience >= 0):
            raise InputError(
                f"patience belongs to schedule='plateau' and is at least 0 epochs, got "
                f"patience={patience} with schedule={self.schedule!r}"
            )
