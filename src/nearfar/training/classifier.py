"""The LightningModule: a classifier, its loss, its optimiser."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from nearfar.training.fit_spec import FitSpec
from nearfar.training.optimisation import check_optimizer, make_optimizer, make_schedules

__all__ = ["Classifier"]


class Classifier(L.LightningModule):
    """Cross-entropy training of any ``[B, C, H, W]`` → ``[B, K]`` network.

    Logs each epoch ``train/loss`` and ``train/lr``, the learning rate it began with, and
    ``validation/loss`` and ``validation/accuracy``.

    Args:
        model: the network.
        fit: optimiser and schedule.
        num_classes: K.

    Raises:
        InputError: an optimiser that timm does not know, or that does not take what it was given.
    """

    def __init__(self, model: nn.Module, fit: FitSpec, num_classes: int) -> None:
        super().__init__()
        check_optimizer(fit)
        self.model = model
        self.fit = fit
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")

    def on_train_epoch_start(self) -> None:
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.model(images), labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self.model(images)
        self.accuracy(logits, labels)
        loss = F.cross_entropy(logits, labels)
        self.log("validation/loss", loss, on_epoch=True, batch_size=len(labels))
        self.log("validation/accuracy", self.accuracy, on_epoch=True, batch_size=len(labels))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = make_optimizer(self.model, self.fit)
        steps = int(self.trainer.estimated_stepping_batches)
        return [optimizer], make_schedules(optimizer, self.fit, steps)  # type: ignore[return-value]
