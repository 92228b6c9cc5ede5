"""The LightningModule: a classifier, its loss, its optimiser."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torchmetrics.classification import MulticlassAccuracy

from nearfar.errors import InputError
from nearfar.training.specs import FitSpec

__all__ = ["Classifier"]


class Classifier(L.LightningModule):
    """Cross-entropy training of any ``[B, C, H, W]`` → ``[B, K]`` network.

    Logs ``train/loss`` each epoch, and ``validation/loss`` and ``validation/accuracy``.

    Args:
        model: the network.
        fit: optimiser and schedule.
        num_classes: K.

    Raises:
        InputError: an optimiser that timm does not know.
    """

    def __init__(self, model: nn.Module, fit: FitSpec, num_classes: int) -> None:
        super().__init__()
        if fit.optimizer not in list_optimizers():
            raise InputError(
                f"no optimizer is named {fit.optimizer!r}; timm.optim.list_optimizers() lists them"
            )
        self.model = model
        self.fit = fit
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")

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
        fit = self.fit
        optimizer = create_optimizer_v2(
            self.model, opt=fit.optimizer, lr=fit.lr, weight_decay=fit.weight_decay
        )
        if fit.schedule == "constant":
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = OneCycleLR(optimizer, max_lr=fit.lr, total_steps=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
