"""Lightning's trainer, and all that depends on how Lightning works inside.

Exact resuming within an epoch needs counters of Lightning's loops that are no public interface
(:func:`set_position`, :func:`mark_as_continued`). Tested with lightning 2.6.6;
``tests/training/test_resume.py`` fails where another version counts differently.
"""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch._dynamo.exc import TorchDynamoException

from nearfar.data import ScaleDataModule
from nearfar.errors import InputError, first_line
from nearfar.training.lightning_module import ClassifierModule
from nearfar.training.processes import ProcessInfo, peer_fault, strategy_of
from nearfar.training.specs import Recipe, TrainerSpec

__all__ = ["count_devices", "mark_as_continued", "run_trainer", "set_position"]


def count_devices(spec: TrainerSpec) -> int:
    """How many devices of this machine the settings mean, and so how many processes.

    Raises:
        InputError: settings that Lightning refuses.
    """
    if isinstance(spec.devices, int) and spec.devices > 0:
        return spec.devices
    names = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")}
    try:
        accelerators = map(
            AcceleratorRegistry.get, names.get(spec.accelerator, (spec.accelerator,))
        )
        accelerator = next(one for one in accelerators if one.is_available())
        if spec.devices == "auto":
            return int(accelerator.auto_device_count())
        devices = accelerator.parse_devices(spec.devices)
        return len(accelerator.get_parallel_devices(devices))
    except (MisconfigurationException, ValueError, TypeError, KeyError) as cause:
        raise _refusal(spec, str(cause)) from cause
    except StopIteration:
        raise _refusal(spec, "no such accelerator is available") from None


def _refusal(spec: TrainerSpec, reason: str) -> InputError:
    names = ("accelerator", "devices", "num_nodes", "precision", "strategy")
    settings = {name: getattr(spec, name) for name in names}
    return InputError(f"these trainer settings cannot be used: {reason} (got {settings})")


def run_trainer(
    module: ClassifierModule,
    images: ScaleDataModule,
    recipe: Recipe,
    out: Path,
    process: ProcessInfo,
    checkpoint: Callback,
    loggers: list[Logger],
) -> L.Trainer:
    """Trains to the last epoch, from where the checkpoint callback resumes.

    Args:
        module: what learns.
        images: what it learns from.
        recipe: of the run.
        out: the run's folder.
        process: which of the run's processes this is.
        checkpoint: saves the state and resumes from it.
        loggers: what is logged, and where.

    Raises:
        InputError: settings that Lightning refuses, or a network that cannot be compiled.
        KeyboardInterrupt: at the keyboard, at the next batch at the latest.
    """
    interruption = _Interruption()
    with warnings.catch_warnings(), interruption.noticed():
        for message in (
            ".*does not have many workers",  # in-memory batches need none
            ".*training_step. returned .None.",  # a batch left out, which is logged
            ".*LeafSpec.* is deprecated",  # Lightning's own use of a deprecated corner of torch
            ".*dataloader is not resumable",  # the sampler knows where to begin
            ".*in eval mode at the start of training",  # frozen layers are meant to be
            ".*broadcast_buffers. is deprecated",  # its successor is unknown to older torch
        ):
            warnings.filterwarnings("ignore", message=message)
        trainer = _make_trainer(recipe, out, process, [interruption, checkpoint], loggers)
        try:
            trainer.fit(module, datamodule=images)
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning exits in its place
                raise KeyboardInterrupt from stop
            raise
        except TorchDynamoException as cause:
            reason = first_line(cause)
            raise InputError(
                f"{recipe.model.name} cannot be compiled here: {reason}; leave out trainer.compile"
            ) from cause
        except RuntimeError as cause:
            if process.world_size > 1 and (fault := peer_fault(cause, recipe.trainer)):
                raise fault from cause
            raise
        interruption.raise_if_requested()
    return trainer


def _make_trainer(
    recipe: Recipe,
    out: Path,
    process: ProcessInfo,
    callbacks: list[Callback],
    loggers: list[Logger],
) -> L.Trainer:
    spec = recipe.trainer
    try:
        return L.Trainer(
            accelerator=spec.accelerator,
            devices=spec.devices,
            num_nodes=spec.num_nodes,
            precision=spec.precision,  # type: ignore[arg-type]
            strategy=strategy_of(spec, process),
            plugins=process.environment,
            max_epochs=recipe.fit.epochs,
            accumulate_grad_batches=recipe.fit.accumulate,
            gradient_clip_val=recipe.fit.clip,
            callbacks=callbacks,
            logger=loggers,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the batches are shared out already
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=out,
        )
    except (MisconfigurationException, ValueError, TypeError) as cause:
        raise _refusal(spec, str(cause)) from cause


class _Interruption(Callback):
    """Stops at the next batch after Ctrl-C.

    A KeyboardInterrupt is raised wherever Python happens to be; if that is a destructor or a callback
    from C, it is printed and lost. So the signal is noted, and raised again.
    """

    def __init__(self) -> None:
        self._requested = False

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Notes the signal for the time of a run; the previous handler is restored afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals go to the main thread
            return
        previous = signal.getsignal(signal.SIGINT)
        if previous is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            # Also where Lightning, when it was interrupted, left the signal ignored.
            signal.signal(signal.SIGINT, previous)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._requested = True
        raise KeyboardInterrupt

    def raise_if_requested(self) -> None:
        """Raises KeyboardInterrupt if the signal came."""
        if self._requested:
            raise KeyboardInterrupt

    def on_train_batch_start(self, *_: Any) -> None:
        """Before each training batch."""
        self.raise_if_requested()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Before each validation batch."""
        self.raise_if_requested()


def set_position(trainer: L.Trainer, epoch: int, batch: int, steps: int) -> None:
    """Sets Lightning's counters to those after so many epochs, batches and updates.

    Args:
        trainer: to be called in ``on_fit_start``.
        epoch: whole epochs done.
        batch: batches done in the epoch after them.
        steps: updates of the weights done in all.
    """
    started = epoch + (batch > 0)
    epochs = {"ready": started, "started": started, "processed": epoch, "completed": epoch}
    batches = dict.fromkeys(("ready", "started", "processed", "completed"), batch)
    counters = trainer.fit_loop.state_dict()
    counters["epoch_progress"] = {"total": epochs, "current": epochs}
    counters["epoch_loop.batch_progress"].update(total=batches, current=batches)
    optimization = counters["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    optimization["step"]["total"] = {"ready": steps, "completed": steps}
    counters["epoch_loop.state_dict"]["_batches_that_stepped"] = steps
    trainer.fit_loop.load_state_dict(counters)
    # Lightning calls an epoch restarted only if some of its batches are done.
    trainer.fit_loop.restarting = batch > 0


def mark_as_continued(trainer: L.Trainer) -> None:
    """Ends Lightning's special treatment of a resumed epoch."""
    trainer.fit_loop.restarting = False
