"""The callback that saves the state of a run, resumes from it, and reports each epoch."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, distributed
from torchmetrics import MeanMetric

from nearfar.atomic import write_atomically
from nearfar.data import ScaleDataModule
from nearfar.errors import InputError
from nearfar.progress import Progress, Step
from nearfar.training.lightning_module import ClassifierModule
from nearfar.training.lightning_trainer import mark_as_continued, set_position
from nearfar.training.run_folder import (
    BestEpoch,
    MetricsFile,
    best_path,
    last_path,
    write_state,
)
from nearfar.training.saved_state import check_optimizer, check_schedules, check_tensors
from nearfar.training.specs import Recipe

__all__ = ["NOT_FINITE", "ExactCheckpoint"]

#: Name of the file that says which images a loss that is no finite number was of.
NOT_FINITE = "not-finite.json"
#: Means of the ClassifierModule over the epoch under way.
_MEANS = ("train_loss", "train_accuracy")


class ExactCheckpoint(Callback):
    """Saves the best epoch's weights and the state of the run, so that a resumed run ends with the same bits.

    ``best.ckpt`` is written after an epoch was validated, ``last.ckpt`` when everything that belongs to the
    epoch is done: so ``last.ckpt`` never names a best epoch that is not there, and an epoch whose best was
    written before a kill is repeated alike. Lightning's own checkpoints are taken before the end of an
    epoch: its resumed runs leave out a plateau's step and lose logged rows.

    Args:
        recipe: of the run.
        folder: of the run.
        metrics: its ``metrics.csv``.
        state: of ``last.ckpt``, to resume from; ``None`` begins.
        notes: what ``last.ckpt`` records besides: ``versions``, and ``data``, the fingerprint of the images.
        progress: called after each epoch, in the first process.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        metrics: MetricsFile,
        state: dict[str, Any] | None,
        notes: dict[str, Any],
        progress: Progress,
    ) -> None:
        self.recipe, self.folder, self.metrics = recipe, folder, metrics
        self.state, self.notes, self.progress = state, notes, progress
        self.best = BestEpoch() if state is None else BestEpoch(**state["best"])
        self._position = (0, 0) if state is None else (state["epoch"], state["batch"])

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Resumes from ``state``."""
        if trainer.strategy.broadcast(self._position) != self._position:
            raise InputError(
                f"the processes of this run see different states of {self.folder}; put it on a disk that "
                f"all machines share"
            )
        if self.state is None:
            return
        assert isinstance(pl_module, ClassifierModule)
        self._check_state(trainer, self.state)
        trainer.strategy.load_optimizer_state_dict({"optimizer_states": [self.state["optimizer"]]})
        configs = trainer.lr_scheduler_configs
        for config, schedule in zip(configs, self.state["schedules"], strict=True):
            config.scheduler.load_state_dict(schedule)
        trainer.precision_plugin.load_state_dict(self.state["precision"])
        pl_module.rate = self.state["rate"]
        # Each process resumes with its own sum: added in another order they would round differently.
        rank = trainer.global_rank
        for name in _MEANS:
            mean = getattr(pl_module, name)
            mean.mean_value = self.state[name]["sum"][rank].to(mean.mean_value)
            mean.weight = self.state[name]["count"][rank].to(mean.weight)
        set_position(trainer, self.state["epoch"], self.state["batch"], self.state["steps"])
        self.state = None  # its tensors are no longer needed

    def _check_state(self, trainer: L.Trainer, state: dict[str, Any]) -> None:
        """Refuses a state that does not fit the optimiser, the rates' schedules and the processes."""
        path = last_path(self.folder)
        fresh = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
        try:
            check_optimizer(
                state["optimizer"], trainer.optimizers[0], f"the optimiser's state in {path}"
            )
            check_schedules(state["schedules"], fresh, f"the schedules in {path}")
            sums = {
                "sum": torch.zeros(trainer.world_size),
                "count": torch.zeros(trainer.world_size),
            }
            for name in _MEANS:
                check_tensors(state[name], sums, f"{name} in {path}")
        except InputError as cause:
            raise InputError(
                f"{cause}; remove {self.folder / 'checkpoints'} to train from the beginning"
            ) from cause

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves: only now is everything of the previous epoch done."""
        if trainer.current_epoch > self._position[0]:
            self._save(trainer, trainer.current_epoch, 0)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """From here on a resumed epoch is like any other: a plateau counts it too."""
        mark_as_continued(trainer)

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        """Stops before weights follow a loss that is no finite number, and says of which images it was."""
        # Half precision has a scaler, which leaves such steps out and goes on with a smaller factor.
        value = float(loss.detach())
        if trainer.precision == "16-mixed" or math.isfinite(value):
            return
        data, batch = trainer.datamodule, trainer.fit_loop.batch_idx  # type: ignore[attr-defined]
        assert isinstance(data, ScaleDataModule)
        epoch = trainer.current_epoch
        record = {
            "epoch": epoch + 1,
            "batch": batch + 1,
            "loss": str(value),
            **data.describe_batch(epoch, batch),
        }
        path = self.folder / NOT_FINITE
        if trainer.is_global_zero:
            write_atomically(path, json.dumps(record, indent=1) + "\n")
        raise InputError(
            f"the loss of {self.recipe.model.name} was {value} in epoch {epoch + 1}, batch "
            f"{batch + 1}: {record['reason']} ({path} lists them); lower fit.lr (now "
            f"{self.recipe.fit.lr}), mend the images, or leave such batches out with fit.not_finite=skip"
        )

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Saves within an epoch, if ``save_every`` is set."""
        every, done = self.recipe.trainer.save_every, batch_idx + 1
        if every is None or done == trainer.num_training_batches:
            return
        if done % (every * trainer.accumulate_grad_batches) == 0:
            self._save(trainer, trainer.current_epoch, done)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves after the last epoch."""
        self._save(trainer, trainer.current_epoch, 0)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the weights if the epoch is the best so far, and reports."""
        loss = float(trainer.callback_metrics["validation/loss"])
        accuracy = float(trainer.callback_metrics["validation/accuracy"])
        if self._is_best(loss, accuracy):
            self.best = BestEpoch(trainer.current_epoch, loss, accuracy)
            assert isinstance(pl_module, ClassifierModule)
            # All processes take part in gathering the weights; the first one writes.
            weights = pl_module.network_state(trainer.strategy.lightning_module_state_dict())
            if trainer.is_global_zero:
                state = {"best": asdict(self.best), "weights": weights}
                write_state(best_path(self.folder), state)
        if trainer.is_global_zero:
            self.progress(
                Step(
                    f"training {self.recipe.model.name}",
                    trainer.current_epoch + 1,
                    self.recipe.fit.epochs,
                    f"validation {accuracy:.1%}",
                )
            )

    def _is_best(self, loss: float, accuracy: float) -> bool:
        if not math.isfinite(loss):
            return False
        if self.recipe.fit.keep == "accuracy":
            return self.best.epoch < 0 or accuracy > self.best.accuracy
        return self.recipe.fit.keep == "last" or loss < self.best.loss

    def _save(self, trainer: L.Trainer, epoch: int, batch: int) -> None:
        module = trainer.lightning_module
        assert isinstance(module, ClassifierModule)
        self._position = (epoch, batch)
        # All processes take part in gathering; the first one writes.
        state = {
            "epoch": epoch,
            "batch": batch,
            "steps": trainer.global_step,
            "module": trainer.strategy.lightning_module_state_dict(),
            "optimizer": trainer.strategy.optimizer_state(trainer.optimizers[0]),
            "schedules": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
            "precision": trainer.precision_plugin.state_dict(),
            "rate": module.rate,
            **{name: _sums(trainer, getattr(module, name)) for name in _MEANS},
            "best": asdict(self.best),
            "rows": self.metrics.rows,
            **self.notes,
        }
        if trainer.is_global_zero:
            write_state(last_path(self.folder), state)


def _sums(trainer: L.Trainer, mean: MeanMetric) -> dict[str, Tensor]:
    """Sum and number of images of each process: ``[P]`` each."""
    assert isinstance(mean.mean_value, Tensor)
    assert isinstance(mean.weight, Tensor)
    return {"sum": _gather(trainer, mean.mean_value), "count": _gather(trainer, mean.weight)}


def _gather(trainer: L.Trainer, value: Tensor) -> Tensor:
    values = [torch.empty_like(value) for _ in range(trainer.world_size)]
    if len(values) == 1:
        values = [value]
    else:
        distributed.all_gather(values, value)
    return torch.stack(values)
