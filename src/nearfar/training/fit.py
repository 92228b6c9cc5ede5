"""``nearfar train``: one network under one recipe."""

from __future__ import annotations

import dataclasses
import math
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.seed import isolate_rng

from nearfar.atomic import make_folder, write_atomically
from nearfar.data import DataSpec, Normalised, ScaleData
from nearfar.errors import InputError
from nearfar.models import create_model
from nearfar.progress import Progress, Step, silent
from nearfar.training.checkpoint import Checkpoint, load_checkpoint, read_record, save_checkpoint
from nearfar.training.classifier import Classifier
from nearfar.training.specs import FitSpec, ModelSpec, Recipe, TrainerSpec
from nearfar.version import __version__

__all__ = ["WEIGHTS", "train"]

#: Name of the weight file in a run's folder.
WEIGHTS = "weights.safetensors"


def train(
    model: ModelSpec = ModelSpec(),
    data: DataSpec = DataSpec(),
    fit: FitSpec = FitSpec(),
    trainer: TrainerSpec = TrainerSpec(),
    seed: int = 0,
    out: Path | str = Path("runs/train"),
    progress: Progress = silent,
) -> Checkpoint:
    """Trains one network and keeps the weights of its best epoch.

    The best epoch is the one with the smallest loss on the validation images; no test image is
    looked at. The folder ``out`` gets ``weights.safetensors`` (weights and record),
    ``config.yaml`` (what reproduces the run), ``metrics.csv`` (two rows an
    epoch, training and validation) and ``checkpoints/`` (Lightning's best and last). The same
    settings on the same machine with the same number of threads give the same weights, bit for bit.

    A folder that already holds a finished run of the same settings is left as it is and its
    network returned. A folder that holds anything else is refused.

    Args:
        model: which network.
        data: which images, at which scales.
        fit: how long and how to train.
        trainer: on what to train.
        seed: of initial weights and the order of images.
        out: folder to write.
        progress: called after each epoch.

    Returns:
        The trained network with its record.

    Raises:
        InputError: settings that do not fit, missing data, or an ``out`` that holds something else.
    """
    out = Path(out)
    check_seed(seed)
    recipe = Recipe(model, data.explicit(), fit, seed, trainer)
    made_with = {"nearfar": __version__, "torch": torch.__version__}
    if (out / WEIGHTS).exists():
        try:
            record = read_record(out / WEIGHTS)
        except InputError as cause:
            raise InputError(f"{cause}; delete {out} to train it again") from cause
        made_then = {key: record.get(key) for key in made_with}
        if Recipe.from_dict(record["recipe"]) == recipe and made_then == made_with:
            return load_checkpoint(out / WEIGHTS)
    config = f"# nearfar train --config config.yaml\n{recipe.as_yaml()}"
    _claim(out, config)
    with _reproducible(recipe):
        return _train(recipe, out, made_with, progress)


def check_seed(seed: int) -> None:
    """Refuses what the random generators refuse.

    Raises:
        InputError: ``seed`` is not from 0 to 2³² − 1.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be from 0 to {2**32 - 1}, got {seed}")


def _claim(out: Path, config: str) -> None:
    """Makes ``out`` this run's folder: new, empty, or left by an interrupted run of these settings."""
    marker = out / "config.yaml"
    if out.is_dir() and any(out.iterdir()):
        mine = marker.is_file() and marker.read_bytes() == config.encode()
        if not mine or (out / WEIGHTS).exists():
            raise InputError(
                f"{out} is not empty and holds no unfinished run of these settings; choose another "
                f"folder with --out, or move that one away"
            )
    make_folder(out)
    write_atomically(marker, config)


def _train(recipe: Recipe, out: Path, made_with: dict[str, str], progress: Progress) -> Checkpoint:
    images = ScaleData(recipe.data, recipe.fit.batch_size, recipe.seed)
    network = create_model(
        recipe.model.name,
        num_classes=len(images.class_names),
        in_chans=images.in_chans,
        **recipe.model.options,
    )
    _try(network, images, recipe)
    # Channels-last is the faster layout for convolutions on CPUs and GPUs alike.
    for tensor in (*network.parameters(), *network.buffers()):
        # Module.to refuses filters over scale, which have five dimensions. `to`, not `contiguous`, which
        # leaves filters of one channel as they are: another layout rounds otherwise.
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    figures = images.normalisation()
    taught = network if figures is None else Normalised(network, figures)
    classifier = Classifier(taught, recipe.fit, len(images.class_names))
    best = _fit(classifier, images, recipe, out, progress)
    save_checkpoint(
        out / WEIGHTS,
        network,
        {
            "recipe": recipe.as_dict(),
            "in_chans": images.in_chans,
            "class_names": list(images.class_names),
            "normalisation": None if figures is None else dataclasses.asdict(figures),
            **made_with,
            **best,
        },
    )
    return load_checkpoint(out / WEIGHTS)


def _fit(
    classifier: Classifier, images: ScaleData, recipe: Recipe, out: Path, progress: Progress
) -> dict[str, Any]:
    """Trains, brings the best epoch's weights back, and says which epoch that was."""
    keep = ModelCheckpoint(
        dirpath=out / "checkpoints",
        filename="best",
        monitor="validation/loss",
        save_last=True,
        enable_version_counter=False,
    )
    watch = _Watch(recipe, progress)
    spec = recipe.trainer
    with warnings.catch_warnings():
        # In-memory batches need no worker processes.
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        # What an interrupted run left is written over.
        warnings.filterwarnings("ignore", message=".*exists and is not empty")
        # Lightning's own use of a deprecated corner of torch.
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
        trainer = _trainer(
            accelerator=spec.accelerator,
            devices=spec.devices,
            num_nodes=spec.num_nodes,
            strategy=spec.strategy,
            precision=spec.precision,
            max_epochs=recipe.fit.epochs,
            callbacks=[keep, watch],
            logger=CSVLogger(out, name="", version=""),
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(classifier, datamodule=images)
        except SystemExit as stop:  # how Lightning passes an interruption on
            raise KeyboardInterrupt from stop
    if watch.best_epoch < 0:
        raise InputError(
            f"the loss of {recipe.model.name} was not a finite number in any epoch: training "
            f"diverged; lower fit.lr (now {recipe.fit.lr})"
        )
    state = torch.load(keep.best_model_path, map_location="cpu", weights_only=True)
    classifier.load_state_dict(state["state_dict"])
    classifier.to("cpu")
    return {
        "best_epoch": watch.best_epoch + 1,
        "validation_loss": watch.best_loss,
        "validation_accuracy": watch.accuracy_then,
    }


def _trainer(**settings: Any) -> L.Trainer:
    try:
        return L.Trainer(**settings)
    except (MisconfigurationException, ValueError, TypeError) as cause:
        given = {k: settings[k] for k in TrainerSpec.__dataclass_fields__}
        raise InputError(f"these trainer settings cannot be used: {cause} (got {given})") from cause


def _try(network: torch.nn.Module, images: ScaleData, recipe: Recipe) -> None:
    """One image through the network, so that what cannot work is said before training."""
    image = images.images("validation", recipe.data.protocol.train_scales[0], first=1)
    try:
        with torch.inference_mode():
            answer = network.eval()(image)
    except Exception as cause:
        size = "×".join(str(n) for n in image.shape[1:])
        raise InputError(
            f"model {recipe.model.name!r} cannot take images of {size}: {cause}; give it other options, "
            f"or data.protocol.canvas another size"
        ) from cause
    finally:
        network.train()
    if answer.shape != (1, len(images.class_names)):
        raise InputError(
            f"model {recipe.model.name!r} answers an image with {tuple(answer.shape)} where one number "
            f"for each of {len(images.class_names)} classes is needed"
        )


@contextmanager
def _reproducible(recipe: Recipe) -> Iterator[None]:
    """Seeds every generator and forbids nondeterministic algorithms, for the time of a run."""
    before = torch.are_deterministic_algorithms_enabled()
    with isolate_rng():
        torch.manual_seed(recipe.seed)
        np.random.seed(recipe.seed)  # noqa: NPY002 (for what uses the global generator)
        random.seed(recipe.seed)
        # Some backward passes have no deterministic form on a GPU; there that is a warning.
        torch.use_deterministic_algorithms(True, warn_only=recipe.trainer.accelerator != "cpu")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


class _Watch(Callback):
    """Reports each epoch, and remembers the best one's figures."""

    def __init__(self, recipe: Recipe, progress: Progress) -> None:
        self.recipe = recipe
        self.progress = progress
        self.best_epoch = -1
        self.best_loss = math.inf
        self.accuracy_then = 0.0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss = float(trainer.callback_metrics["validation/loss"])
        accuracy = float(trainer.callback_metrics["validation/accuracy"])
        if loss < self.best_loss:
            self.best_epoch, self.best_loss = trainer.current_epoch, loss
            self.accuracy_then = accuracy
        self.progress(
            Step(
                f"training {self.recipe.model.name}",
                trainer.current_epoch + 1,
                self.recipe.fit.epochs,
                f"validation {accuracy:.1%}",
            )
        )
