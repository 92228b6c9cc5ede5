"""The LightningModule: a classifier, its loss, its optimiser and the average of its weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from nearfar.data import Normalised, ScaleDataModule
from nearfar.training.checkpoint import unique_state
from nearfar.training.fit_spec import FitSpec
from nearfar.training.optimisation import check_optimizer, make_optimizer, make_schedules
from nearfar.training.seeding import seed_step

_LOG = logging.getLogger(__name__)

__all__ = ["ClassifierModule", "Mixing", "average_of"]


class ClassifierModule(L.LightningModule):
    """Cross-entropy training of any ``[B, C, H, W]`` → ``[B, K]`` network.

    Logs each epoch ``train/loss`` and, unless images are mixed, ``train/accuracy``, both of the batches as
    they were trained on, ``train/lr``, the learning rate at the epoch's start, and
    ``validation/loss`` and ``validation/accuracy``. Every step draws its random numbers from
    the seed, the epoch and the batch alone.

    Args:
        model: the network.
        fit: optimiser, schedule and what is done to batches and weights.
        num_classes: K.
        seed: of what the network draws in training, such as dropout.

    Raises:
        InputError: an optimiser that timm does not know, or that does not take the settings.
    """

    def __init__(self, model: nn.Module, fit: FitSpec, num_classes: int, seed: int = 0) -> None:
        super().__init__()
        check_optimizer(fit)
        self.model = model
        self.fit = fit
        self.seed = seed
        self.mixing = Mixing(fit, num_classes)
        self.average = None if fit.ema is None else average_of(model, fit.ema)
        # A loss that is not a number stays one in the mean. ("disable" would ignore the weights.)
        not_a_number = float("nan")
        self.train_loss = MeanMetric(nan_strategy=not_a_number)
        self.train_accuracy = MeanMetric(nan_strategy=not_a_number)
        self.validation_loss = MeanMetric(nan_strategy=not_a_number)
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.rate = 0.0
        network = model.network if isinstance(model, Normalised) else model
        self._weight_names = tuple(unique_state(network))

    def on_train_epoch_start(self) -> None:
        self.train_loss.reset()
        self.train_accuracy.reset()
        self.rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        seed_step(self.seed, self.current_epoch, batch_idx, self.global_rank)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        images, labels = self.mixing.mix(*batch)
        logits = _full_precision(self.model(images))
        loss = self.mixing.loss(logits, labels)
        if self.fit.not_finite == "skip" and not bool(loss.detach().isfinite()):
            _LOG.warning("epoch %d: batch %d left out, its loss is %g",
                         self.current_epoch + 1, batch_idx + 1, float(loss.detach()))  # fmt: skip
            return None
        self.train_loss.update(loss.detach(), len(labels))
        if not self.mixing.mixup:  # mixed images have no one right class
            classes = labels if labels.dim() == 1 else labels.argmax(1)
            accuracy = (logits.detach().argmax(1) == classes).float().mean()
            self.train_accuracy.update(accuracy, len(labels))
        return loss * self._loss_weight(len(labels), batch_idx)

    def on_train_epoch_end(self) -> None:
        self.log("train/lr", self.rate, sync_dist=True)  # the same in all processes
        self.log("train/loss", self.train_loss)
        if not self.mixing.mixup:
            self.log("train/accuracy", self.train_accuracy)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        model = self.model if self.average is None else self.average.module
        logits = _full_precision(model(images))
        self.accuracy(logits, labels)
        self.validation_loss.update(F.cross_entropy(logits, labels), len(labels))
        self.log("validation/loss", self.validation_loss)
        self.log("validation/accuracy", self.accuracy)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = make_optimizer(self.model, self.fit)
        steps = int(self.trainer.estimated_stepping_batches)
        return [optimizer], make_schedules(optimizer, self.fit, steps)  # type: ignore[return-value]

    def network_state(self, module_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The network's own tensors in the state of this module: the averages, where there are any.

        Args:
            module_state: a state dict of this module, gathered from all processes.
        """
        prefix = "model." if self.average is None else "average.module."
        if isinstance(self.model, Normalised):
            prefix += "network."
        return {name: module_state[prefix + name] for name in self._weight_names}

    def _loss_weight(self, images: int, batch: int) -> float:
        """The factor of this process's mean loss with which an update follows the mean over all images.

        Lightning divides by the number of batches of an update, and processes average their gradients:
        right only where all of them hold equally many images.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ScaleDataModule)
        parts = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return images * parts / data.update_size(batch, self.trainer.accumulate_grad_batches)


def _full_precision(logits: Tensor) -> Tensor:
    """Half precision is too coarse for losses and their means; not every device takes care of that."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def average_of(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of a network for the exponential moving average of its weights, from the first ones on.

    Args:
        model: the network.
        decay: d of ``average ← d · average + (1 − d) · weights``; buffers of integers are copied.
    """

    def update(averages: Any, values: Any, updates: Any) -> None:
        # torch's own get_ema_multi_avg_fn would average the counters of batch norms, too.
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1 - decay)
        else:
            torch._foreach_copy_(averages, values)

    average = AveragedModel(model, multi_avg_fn=torch.no_grad()(update), use_buffers=True)
    average.requires_grad_(False)
    average.update_parameters(model)  # torch's first update only copies
    return average


class Mixing:
    """What mixup, cutmix and label smoothing make of a training batch.

    The shares and rectangles come from numpy's global generator, as timm draws them.

    Args:
        fit: ``mixup``, ``cutmix`` and ``label_smoothing``.
        num_classes: K.
    """

    def __init__(self, fit: FitSpec, num_classes: int) -> None:
        self.smoothing = fit.label_smoothing
        self.classes = num_classes
        self.mixup = (
            Mixup(  # type: ignore[no-untyped-call]
                fit.mixup, fit.cutmix, label_smoothing=self.smoothing, num_classes=num_classes
            )
            if fit.mixup or fit.cutmix
            else None
        )

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels to train on: labels ``[B]``, or shares ``[B, K]`` if mixed."""
        if self.mixup is None:
            return images, labels
        if len(labels) % 2 == 0:
            mixed: tuple[Tensor, Tensor] = self.mixup(images, labels)
            return mixed
        # timm takes even batches only. The image in the middle would meet itself: it stays as it is.
        middle = len(labels) // 2
        one_hot = F.one_hot(labels[middle], self.classes) * (1 - self.smoothing)
        shares = (one_hot + self.smoothing / self.classes)[None]
        if len(labels) == 1:
            return images, shares
        rest = [i for i in range(len(labels)) if i != middle]
        mixed_images, mixed_shares = self.mixup(images[rest], labels[rest])
        order = [*range(middle), len(rest), *range(middle, len(rest))]
        return (
            torch.cat([mixed_images, images[middle][None]])[order],
            torch.cat([mixed_shares, shares])[order],
        )

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy to what :meth:`mix` returned."""
        # Shares are softened already.
        smoothing = self.smoothing if self.mixup is None else 0.0
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
