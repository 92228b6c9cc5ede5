"""The LightningModule: a classifier, its loss, its optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torchmetrics.classification import MulticlassAccuracy

from nearfar.data import Normalised, ScaleData
from nearfar.training.fit_spec import FitSpec
from nearfar.training.image_mean import ImageMean
from nearfar.training.mixing import Mixing
from nearfar.training.optimisation import check_optimizer, make_optimizer, make_schedules
from nearfar.training.randomness import seed_step
from nearfar.training.running_mean import RunningMean

__all__ = ["Classifier"]


class Classifier(L.LightningModule):
    """Cross-entropy training of any ``[B, C, H, W]`` → ``[B, K]`` network.

    Logs each epoch ``train/loss`` and, unless images are mixed, ``train/accuracy``, both as met in
    training, ``train/lr``, the learning rate it began with, and
    ``validation/loss`` and ``validation/accuracy``. Every step draws its random numbers from
    the seed, the epoch and the batch alone.

    Args:
        model: the network.
        fit: optimiser, schedule and what is done to batches and weights.
        num_classes: K.
        seed: of what the network draws in training, such as dropout.

    Raises:
        InputError: an optimiser that timm does not know, or that does not take what it was given.
    """

    def __init__(self, model: nn.Module, fit: FitSpec, num_classes: int, seed: int = 0) -> None:
        super().__init__()
        check_optimizer(fit)
        self.model = model
        self.fit = fit
        self.seed = seed
        self.mixing = Mixing(fit, num_classes)
        self.mean = None if fit.ema is None else RunningMean(model, fit.ema)
        self.train_loss = ImageMean()
        self.train_accuracy = ImageMean()
        self.validation_loss = ImageMean()
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.rate = 0.0

    def on_train_epoch_start(self) -> None:
        self.train_loss.reset()
        self.train_accuracy.reset()
        self.rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        seed_step(self.seed, self.current_epoch, batch_idx, self.global_rank)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, answers = self.mixing.mix(*batch)
        logits = _fine(self.model(images))
        loss = self.mixing.loss(logits, answers)
        self.train_loss.update(loss, len(answers))
        if not self.mixing.mixup:  # mixed images have no one right answer
            best = answers if answers.dim() == 1 else answers.argmax(1)
            right = (logits.detach().argmax(1) == best).float().mean()
            self.train_accuracy.update(right, len(answers))
        return loss * self._share(len(answers), batch_idx)

    def on_train_epoch_end(self) -> None:
        self.log("train/lr", self.rate, sync_dist=True)  # which is the same everywhere
        self.log("train/loss", self.train_loss)
        if not self.mixing.mixup:
            self.log("train/accuracy", self.train_accuracy)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = _fine((self.model if self.mean is None else self.mean.module)(images))
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
        if self.mean is not None:
            self.mean.update(self.model)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = make_optimizer(self.model, self.fit)
        steps = int(self.trainer.estimated_stepping_batches)
        return [optimizer], make_schedules(optimizer, self.fit, steps)  # type: ignore[return-value]

    def kept_state(self, whole: dict[str, Any]) -> dict[str, Tensor]:
        """The network's own state among that of the whole module: the running mean's if there is one."""
        prefix = "model." if self.mean is None else "mean.module."
        if isinstance(self.model, Normalised):
            prefix += "network."
        return {k[len(prefix) :]: v for k, v in whole.items() if k.startswith(prefix)}

    def _share(self, images: int, batch: int) -> float:
        """What weight the mean loss of this process's images has, so that updates follow the mean over all.

        Lightning divides by the number of batches of an update, and processes average their gradients:
        right only where all of them hold equally many images.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ScaleData)
        parts = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return images * parts / data.update_size(batch, self.trainer.accumulate_grad_batches)


def _fine(logits: Tensor) -> Tensor:
    """Half precision is too coarse for losses and their means; not every device takes care of that."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
