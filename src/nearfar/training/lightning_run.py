"""Lightning's part of a training run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger
from torch._dynamo.exc import TorchDynamoException

from nearfar.data import ScaleData
from nearfar.errors import InputError
from nearfar.training.classifier import Classifier
from nearfar.training.keeper import Keeper
from nearfar.training.processes import Place, strategy_of
from nearfar.training.specs import Recipe, TrainerSpec

__all__ = ["make_trainer", "run_trainer"]


def run_trainer(
    classifier: Classifier,
    images: ScaleData,
    recipe: Recipe,
    out: Path,
    place: Place,
    keeper: Keeper,
    loggers: list[Logger],
) -> None:
    """Trains from where the keeper says to the last epoch.

    Args:
        classifier: what learns.
        images: what it learns from.
        recipe: how.
        out: the run's folder.
        place: which of the run's processes this is.
        keeper: writes checkpoints, and knows from where to go on.
        loggers: what is logged, and where.

    Raises:
        InputError: settings that Lightning refuses, or a network that cannot be compiled.
        KeyboardInterrupt: at the keyboard, as ever.
    """
    with warnings.catch_warnings():
        for expected in (
            ".*does not have many workers",  # in-memory batches need none
            ".*LeafSpec.* is deprecated",  # Lightning's own use of a deprecated corner of torch
            ".*dataloader is not resumable",  # the sampler is told where to begin
            ".*broadcast_buffers. is deprecated",  # its successor is unknown to older torch
            ".*in eval mode at the start of training",  # the running mean of the weights is
        ):
            warnings.filterwarnings("ignore", message=expected)
        trainer = make_trainer(
            recipe.trainer,
            strategy=strategy_of(recipe.trainer, place),
            plugins=place.environment,
            max_epochs=recipe.fit.epochs,
            accumulate_grad_batches=recipe.fit.accumulate,
            gradient_clip_val=recipe.fit.clip,
            callbacks=[keeper],
            logger=loggers,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the batches are shared out already
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=out,
        )
        try:
            trainer.fit(classifier, datamodule=images)
        except SystemExit as stop:  # how Lightning passes an interruption on
            raise KeyboardInterrupt from stop
        except TorchDynamoException as cause:
            raise InputError(
                f"{recipe.model.name} cannot be compiled here: {str(cause).strip().partition(chr(10))[0]}; "
                f"leave out trainer.compile"
            ) from cause


def make_trainer(spec: TrainerSpec, **settings: Any) -> L.Trainer:
    """Lightning's trainer on what the settings name.

    Args:
        spec: the settings.
        settings: of ``lightning.Trainer``, besides.

    Raises:
        InputError: settings that Lightning refuses.
    """
    given = {
        "accelerator": spec.accelerator,
        "devices": spec.devices,
        "num_nodes": spec.num_nodes,
        "precision": spec.precision,
    }
    try:
        return L.Trainer(**{**given, **settings})
    except (MisconfigurationException, ValueError, TypeError) as cause:
        given["strategy"] = spec.strategy
        raise InputError(f"these trainer settings cannot be used: {cause} (got {given})") from cause
