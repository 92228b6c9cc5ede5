"""The callback that writes what a run is taken up from, and takes it up."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, distributed

from nearfar.errors import InputError
from nearfar.progress import Progress, Step
from nearfar.training.classifier import Classifier
from nearfar.training.image_mean import ImageMean
from nearfar.training.metrics_log import MetricsLog
from nearfar.training.run_state import Kept, best_path, last_path, write_state
from nearfar.training.specs import Recipe

__all__ = ["Keeper"]

#: What the classifier has gathered of an epoch under way.
_MEANS = ("train_loss", "train_accuracy")


class Keeper(Callback):
    """Keeps the best epoch's weights and the state of the run, and reports each epoch.

    ``best.ckpt`` is written when an epoch was validated, ``last.ckpt`` when everything that belongs to the
    epoch is done: so the last never speaks of a best that is not there, and an epoch whose best was
    written before a kill is repeated alike. Lightning's own checkpoints are taken before an
    epoch's last things: its resumed runs leave out a plateau's step and lose logged rows.

    Args:
        recipe: the run's.
        folder: the run's.
        rows: its ``metrics.csv``.
        state: of ``last.ckpt``, to go on from; ``None`` begins.
        noted: what ``last.ckpt`` says besides: ``versions``, and ``data``, the fingerprint of the images.
        progress: called after each epoch, in the first process.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        rows: MetricsLog,
        state: dict[str, Any] | None,
        noted: dict[str, Any],
        progress: Progress,
    ) -> None:
        self.recipe, self.folder, self.rows = recipe, folder, rows
        self.state, self.noted, self.progress = state, noted, progress
        self.kept = Kept() if state is None else Kept(**state["kept"])
        self._saved = (0, 0) if state is None else (state["epoch"], state["batch"])

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the run up where ``state`` left it."""
        if trainer.strategy.broadcast(self._saved) != self._saved:
            raise InputError(
                f"the processes of this run see different states of {self.folder}; put it on a disk that "
                f"all machines share"
            )
        if self.state is None:
            return
        assert isinstance(pl_module, Classifier)
        trainer.strategy.load_optimizer_state_dict({"optimizer_states": [self.state["optimizer"]]})
        for config, was in zip(trainer.lr_scheduler_configs, self.state["schedules"], strict=True):
            config.scheduler.load_state_dict(was)
        trainer.precision_plugin.load_state_dict(self.state["precision"])
        pl_module.rate = self.state["rate"]
        # Each process goes on with its own sum: in another order they would round otherwise.
        mine = trainer.global_rank
        for name in _MEANS:
            mean = getattr(pl_module, name)
            mean.total = self.state[name]["total"][mine].to(mean.total)
            mean.images = self.state[name]["images"][mine].to(mean.images)
        _place(trainer, self.state["epoch"], self.state["batch"], self.state["steps"])
        self.state = None  # its tensors are no longer needed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The epoch before is wholly done only now."""
        if trainer.current_epoch > self._saved[0]:
            self._save(trainer, trainer.current_epoch, 0)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """From here on an epoch that was taken up is like any other: a plateau counts it too."""
        trainer.fit_loop.restarting = False

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Saves within an epoch, if that is asked for."""
        every, done = self.recipe.trainer.save_every, batch_idx + 1
        if every is None or done == trainer.num_training_batches:
            return
        if done % (every * trainer.accumulate_grad_batches) == 0:
            self._save(trainer, trainer.current_epoch, done)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last epoch is done."""
        self._save(trainer, trainer.current_epoch, 0)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the epoch's weights if they are the ones to keep, and reports."""
        loss = float(trainer.callback_metrics["validation/loss"])
        accuracy = float(trainer.callback_metrics["validation/accuracy"])
        if self._wanted(loss, accuracy):
            self.kept = Kept(trainer.current_epoch, loss, accuracy)
            assert isinstance(pl_module, Classifier)
            weights = pl_module.kept_state(trainer.strategy.lightning_module_state_dict())
            if trainer.is_global_zero:
                state = {"kept": asdict(self.kept), "weights": weights}
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

    def _wanted(self, loss: float, accuracy: float) -> bool:
        if not math.isfinite(loss):
            return False
        if self.recipe.fit.keep == "accuracy":
            return self.kept.epoch < 0 or accuracy > self.kept.accuracy
        return self.recipe.fit.keep == "last" or loss < self.kept.loss

    def _save(self, trainer: L.Trainer, epoch: int, batch: int) -> None:
        module = trainer.lightning_module
        assert isinstance(module, Classifier)
        self._saved = (epoch, batch)
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
            "kept": asdict(self.kept),
            "rows": self.rows.rows,
            **self.noted,
        }
        if trainer.is_global_zero:
            write_state(last_path(self.folder), state)


def _sums(trainer: L.Trainer, mean: ImageMean) -> dict[str, Tensor]:
    return {"total": _of_all(trainer, mean.total), "images": _of_all(trainer, mean.images)}


def _of_all(trainer: L.Trainer, figure: Tensor) -> Tensor:
    every = [torch.empty_like(figure) for _ in range(trainer.world_size)]
    if len(every) == 1:
        every = [figure]
    else:
        distributed.all_gather(every, figure)
    return torch.stack(every)


def _place(trainer: L.Trainer, epoch: int, batch: int, steps: int) -> None:
    """Sets Lightning's counters as they stand after so many epochs, batches and steps."""
    begun = epoch + (batch > 0)
    epochs = {"ready": begun, "started": begun, "processed": epoch, "completed": epoch}
    batches = dict.fromkeys(("ready", "started", "processed", "completed"), batch)
    updates = {"ready": steps, "completed": steps}
    counters = trainer.fit_loop.state_dict()
    counters["epoch_progress"] = {"total": epochs, "current": epochs}
    counters["epoch_loop.batch_progress"].update(total=batches, current=batches)
    optimizing = counters["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    optimizing["step"]["total"] = updates
    counters["epoch_loop.state_dict"]["_batches_that_stepped"] = steps
    trainer.fit_loop.load_state_dict(counters)
    # Lightning calls an epoch restarted only if some of its batches are done.
    trainer.fit_loop.restarting = batch > 0
