"""``nearfar train``: one network under one recipe."""

from __future__ import annotations

import copy
import dataclasses
from contextlib import nullcontext
from pathlib import Path

import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import distributed, nn

from nearfar.data import DataSpec, Normalised, ScaleDataModule, SoftLabels
from nearfar.data.unreadable import SKIPPED, listing_skipped
from nearfar.errors import InputError
from nearfar.progress import Progress, silent
from nearfar.training.checkpoint import (
    TRAINED_OPTIONS,
    Checkpoint,
    data_change,
    load_checkpoint,
    read_record,
    save_weights,
)
from nearfar.training.checkpoint_callback import ExactCheckpoint
from nearfar.training.lightning_module import ClassifierModule
from nearfar.training.lightning_trainer import count_devices, run_trainer
from nearfar.training.prepare_network import prepare_network, smallest_batch
from nearfar.training.processes import ProcessInfo, find_process, launch
from nearfar.training.run_folder import (
    WEIGHTS,
    MetricsFile,
    best_path,
    claimed,
    last_path,
    read_best,
    read_last,
)
from nearfar.training.saved_state import check_tensors
from nearfar.training.seeding import check_seed, reproducible
from nearfar.training.specs import FitSpec, ModelSpec, Recipe, TrainerSpec, check_tensorboard
from nearfar.version import versions

__all__ = ["train", "train_recipe"]


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

    The best epoch is the one with the smallest loss on the validation images (``fit.keep`` names
    others); no test image is looked at. The folder ``out`` gets ``weights.safetensors`` (weights and
    record), ``config.yaml`` (what reproduces the run), ``metrics.csv`` (two rows an epoch, training and
    validation) and ``checkpoints/`` (the best epoch, and what an interrupted run resumes from). The
    same settings on the same machine with the same number of threads give the same weights, bit for bit,
    whether or not the run was interrupted.

    A folder that already holds a finished run of the same settings is left as it is and its
    network returned. An unfinished run of the same settings is resumed. A folder that holds anything
    else is refused.

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
        InputError: settings that do not fit, data that are missing or changed since an interrupted run
            began, or an ``out`` that holds something else, a finished run of other versions, or a run
            under way in another process.
    """
    return train_recipe(Recipe(model, data.explicit(), fit, seed, trainer), out, progress)


def train_recipe(
    recipe: Recipe,
    out: Path | str,
    progress: Progress = silent,
    network: nn.Module | None = None,
    soft_labels: SoftLabels | None = None,
) -> Checkpoint:
    """:func:`train`, with what a recipe cannot name: a network that exists already, a teacher's soft labels.

    Args:
        recipe: all settings, explicit.
        out, progress: as in :func:`train`.
        network: a copy of it is trained, in place of the network that the recipe's model names.
        soft_labels: to train towards, in place of the images' labels.

    Raises:
        InputError: as :func:`train` does; several processes, or mixed images, with what a recipe cannot name.
    """
    out = Path(out)
    check_seed(recipe.seed)
    _check_additions(recipe, network, soft_labels)
    if (out / WEIGHTS).exists():
        finished = _finished_run(recipe, out, network)
        if finished is not None:
            return finished
    spec = recipe.trainer
    check_tensorboard(spec)
    process = find_process(spec, count_devices(spec))
    if recipe.fit.not_finite == "skip" and process.world_size > 1:
        raise InputError(
            f"not_finite='skip' leaves out a batch in one process, and {process.world_size} share it; train "
            f"in one process, or with not_finite='stop'"
        )
    if spec.strategy == "fsdp" and recipe.fit.ema is not None:
        raise InputError(
            f"ema={recipe.fit.ema} cannot follow weights that strategy='fsdp' shares out; leave ema out, or "
            f"take strategy='ddp'"
        )
    with nullcontext() if process.rank else claimed(out, recipe):
        if process.launched:
            return _train(recipe, out, process, progress, network, soft_labels)
        threads = torch.get_num_threads()
        each = max(1, threads // process.world_size) if spec.accelerator == "cpu" else threads
        launch(_train, (recipe, out.absolute()), process.world_size, each, progress)
        return load_checkpoint(out / WEIGHTS)


def _check_additions(
    recipe: Recipe, network: nn.Module | None, soft_labels: SoftLabels | None
) -> None:
    """Refuses settings that do not go with a network or soft labels beside the recipe."""
    if network is None and soft_labels is None:
        return
    if recipe.trainer.devices not in (1, "1") or recipe.trainer.num_nodes != 1:
        raise InputError(
            f"a network given as it is trains in one process, got devices={recipe.trainer.devices} and "
            f"num_nodes={recipe.trainer.num_nodes}; leave them at 1"
        )
    if network is not None and recipe.fit.init != "default":
        raise InputError(
            f"fit.init={recipe.fit.init!r} would draw new weights in place of those given; leave it out"
        )
    if soft_labels is not None and (recipe.fit.mixup or recipe.fit.cutmix):
        raise InputError(
            f"mixup and cutmix need labels, and a teacher gives shares; got mixup={recipe.fit.mixup} and "
            f"cutmix={recipe.fit.cutmix}; leave them out"
        )


def _finished_run(recipe: Recipe, out: Path, network: nn.Module | None) -> Checkpoint | None:
    """The finished run in ``out``; ``None`` where it is one of other settings."""
    try:
        record = read_record(out / WEIGHTS)
    except InputError as cause:
        raise InputError(f"{cause}; delete {out} to train it again") from cause
    if Recipe.from_dict(record["recipe"]) != recipe or TRAINED_OPTIONS in record:
        return None
    current = versions()
    recorded = {key: record.get(key, "unknown") for key in current}
    if recorded != current:
        then, now = (" and ".join(map(" ".join, each.items())) for each in (recorded, current))
        raise InputError(
            f"{out} holds a finished run of these settings, made with {then}, and this is {now}, which may "
            f"round otherwise; delete the folder to train it again, or audit its weights as they are"
        )
    return load_checkpoint(out / WEIGHTS, copy.deepcopy(network))


def _train(
    recipe: Recipe,
    out: Path,
    process: ProcessInfo,
    progress: Progress,
    network: nn.Module | None = None,
    soft_labels: SoftLabels | None = None,
) -> Checkpoint:
    """Trains in one of the run's processes; the first one writes the weights."""
    # Some backward passes have no deterministic form on a GPU; there that is a warning.
    with reproducible(recipe.seed, warn_only=recipe.trainer.accelerator != "cpu"):
        images = _load_images(recipe, out, process, soft_labels)
        trained = prepare_network(recipe, images, process, network)
        normalisation = recipe.model.normalisation() or images.normalisation()
        model = trained if normalisation is None else Normalised(trained, normalisation)
        module = ClassifierModule(model, recipe.fit, len(images.class_names), recipe.seed)
        if recipe.trainer.compile:
            model.compile()  # in place: the names of weights stay as they are
        _fit(module, images, recipe, out, process, progress)
        if process.rank == 0:
            _save_best(recipe, images, out)
        if process.world_size > 1:
            distributed.barrier()
        return load_checkpoint(out / WEIGHTS, copy.deepcopy(network))


def _load_images(
    recipe: Recipe, out: Path, process: ProcessInfo, soft_labels: SoftLabels | None
) -> ScaleDataModule:
    def load() -> ScaleDataModule:
        images = ScaleDataModule(recipe.data, recipe.fit.batch_size, recipe.seed)
        if soft_labels is not None:
            images.learn_from(soft_labels)
        return images

    images = load() if process.rank else listing_skipped(load, out / SKIPPED)
    smallest = smallest_batch(images)
    if (smallest + 1) // 2 < process.world_size:
        raise InputError(
            f"{process.world_size} processes share a batch in pairs of images, but the last of "
            f"{len(images.indices['train'])} training images in batches of {images.batch_size} has "
            f"{smallest}; choose another fit.batch_size or data.train"
        )
    return images


def _fit(
    module: ClassifierModule,
    images: ScaleDataModule,
    recipe: Recipe,
    out: Path,
    process: ProcessInfo,
    progress: Progress,
) -> None:
    """Trains, from the beginning or from the saved state."""
    state = read_last(out, versions())
    data = images.fingerprint()
    change = "" if state is None else data_change(state["data"], data)
    if change:
        raise InputError(
            f"the images of {recipe.data.source} are not those that the run in {out} began with: {change}; "
            f"put them back as they were to go on, or train anew in another folder with --out"
        )
    metrics = MetricsFile(out / "metrics.csv", [] if state is None else state["rows"])
    notes = {"data": data, "versions": versions()}
    checkpoint = ExactCheckpoint(recipe, out, metrics, state, notes, progress)
    loggers: list[Logger] = [metrics]
    if recipe.trainer.tensorboard:
        steps = 0 if state is None else state["steps"]
        # What was logged after the state was written is logged again.
        loggers.append(TensorBoardLogger(out, "tensorboard", "", purge_step=steps))
    if state is not None:
        state_name = f"the state in {last_path(out)}"
        check_tensors(state["module"], module.state_dict(), state_name)
        module.load_state_dict(state["module"])
        images.begin_at(state["epoch"], state["batch"])
    run_trainer(module, images, recipe, out, process, checkpoint, loggers)
    best, last = checkpoint.best.epoch, recipe.fit.epochs - 1
    if best < 0 or (recipe.fit.keep == "last" and best < last):
        raise InputError(
            f"the loss of {recipe.model.name} was not a finite number in "
            f"{'any' if best < 0 else 'the last'} epoch: training diverged; lower fit.lr (now "
            f"{recipe.fit.lr})"
        )


def _save_best(recipe: Recipe, images: ScaleDataModule, out: Path) -> None:
    """Writes the weights of the best epoch, with their record.

    The figures are those beside the weights: a run that was killed between ``best.ckpt`` and ``last.ckpt``,
    on hardware that does not repeat bits, may have gone on without finding that epoch the best again.
    """
    state = read_best(out)
    if state is None:
        raise InputError(
            f"{best_path(out)} cannot be read; remove {out / 'checkpoints'} to train from the beginning"
        )
    best, weights = state
    normalisation = recipe.model.normalisation() or images.normalisation()
    colours = images.colours()
    save_weights(
        out / WEIGHTS,
        weights,
        {
            "recipe": recipe.as_dict(),
            "in_chans": images.in_chans,
            "class_names": list(images.class_names),
            "normalisation": None if normalisation is None else dataclasses.asdict(normalisation),
            "colours": None if colours is None else dataclasses.asdict(colours),
            "edition": images.edition,
            "data": {k: v for k, v in images.fingerprint().items() if k != "soft_labels"},
            **versions(),
            "best_epoch": best.epoch + 1,
            "validation_loss": best.loss,
            "validation_accuracy": best.accuracy,
        },
    )
