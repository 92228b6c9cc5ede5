"""``nearfar train``: one network under one recipe."""

from __future__ import annotations

import copy
import dataclasses
import random
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from nearfar.data import DataSpec, Normalised, ScaleData
from nearfar.data.unreadable import SKIPPED, listing_skipped
from nearfar.errors import InputError
from nearfar.progress import Progress, silent
from nearfar.training.checkpoint import (
    TRAINED_OPTIONS,
    Checkpoint,
    load_checkpoint,
    read_record,
    save_checkpoint,
)
from nearfar.training.classifier import Classifier
from nearfar.training.first_weights import draw_weights
from nearfar.training.folder import WEIGHTS, claimed
from nearfar.training.given import Given
from nearfar.training.joint_norm import join_batch_norms
from nearfar.training.keeper import Keeper
from nearfar.training.lightning_run import make_trainer, run_trainer
from nearfar.training.metrics_log import MetricsLog
from nearfar.training.network import make_network
from nearfar.training.processes import Place, find_place, others
from nearfar.training.run_state import Kept, read_best, read_last
from nearfar.training.same_data import what_changed
from nearfar.training.specs import FitSpec, ModelSpec, Recipe, TrainerSpec
from nearfar.training.trainer_spec import check_tensorboard
from nearfar.version import versions

__all__ = ["WEIGHTS", "follow", "train", "train_given"]

#: How long processes beside the first wait for it to write the weights, in seconds.
_PATIENCE = 600


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
    validation) and ``checkpoints/`` (the best epoch, and what an interrupted run goes on from). The same
    settings on the same machine with the same number of threads give the same weights, bit for bit,
    whether or not the run was interrupted.

    A folder that already holds a finished run of the same settings is left as it is and its
    network returned. One that holds an unfinished run of the same settings is gone on with. A folder
    that holds anything else is refused.

    Args:
        model: which network.
        data: which images, at which scales.
        fit: how long and how to train.
        trainer: on what to train.
        seed: of initial weights and the order of images.
        out: folder to write.
        progress: called after each epoch, in the first process.

    Returns:
        The trained network with its record.

    Raises:
        InputError: settings that do not fit, data that are missing or changed since an interrupted run
            began, or an ``out`` that holds something else, a finished run of other versions, or a run
            under way in another process.
    """
    return train_given(Recipe(model, data.explicit(), fit, seed, trainer), out, progress)


def train_given(
    recipe: Recipe,
    out: Path | str,
    progress: Progress = silent,
    given: Given = Given(),
) -> Checkpoint:
    """:func:`train`, with what a recipe cannot name: a network that is there already, a teacher's answers.

    Args:
        recipe: all settings, explicit.
        out, progress: as in :func:`train`.
        given: the network and the answers, which the recipe's model and data stand for.

    Raises:
        InputError: as :func:`train` does; several processes, or images mixed, with what was given.
    """
    out = Path(out)
    check_seed(recipe.seed)
    given.check(recipe)
    trainer = recipe.trainer
    if (out / WEIGHTS).exists():
        done = _done(out, recipe, given)
        if done is not None:
            return done
    check_tensorboard(trainer)
    place = find_place(trainer, _devices(trainer))
    if trainer.strategy == "fsdp" and recipe.fit.ema is not None:
        raise InputError(
            f"ema={recipe.fit.ema} cannot follow weights that strategy='fsdp' shares out; leave ema out, or "
            f"take strategy='ddp'"
        )
    claim = nullcontext() if place.rank else claimed(out, recipe)
    with claim, _reproducible(recipe), others(place, recipe, out):
        return _train(recipe, out, place, progress, given)


def follow(recipe: Recipe, out: Path, place: Place) -> None:
    """Trains along in a process beside the first, which writes.

    Args:
        recipe: the run's.
        out: its folder, which the first process has claimed.
        place: which process this is.
    """
    with _reproducible(recipe):
        _train(recipe, out, place, silent)


def _done(out: Path, recipe: Recipe, given: Given) -> Checkpoint | None:
    """The finished run in ``out``; ``None`` where it is one of other settings."""
    try:
        record = read_record(out / WEIGHTS)
    except InputError as cause:
        raise InputError(f"{cause}; delete {out} to train it again") from cause
    if Recipe.from_dict(record["recipe"]) != recipe or TRAINED_OPTIONS in record:
        return None
    now = versions()
    then = {key: record.get(key, "unknown") for key in now}
    if then != now:
        raise InputError(
            f"{out} holds a finished run of these settings, made with {_said(then)}, and this is "
            f"{_said(now)}, which may round otherwise; delete the folder to train it again, or audit its "
            f"weights as they are"
        )
    return load_checkpoint(out / WEIGHTS, given.copy())


def _said(versions: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in versions.items())


def _devices(spec: TrainerSpec) -> int:
    """How many devices of this machine the settings mean, and so how many processes."""
    if isinstance(spec.devices, int) and spec.devices > 0:
        return spec.devices
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it has to say it says when it trains
        return int(make_trainer(spec, logger=False, enable_checkpointing=False).num_devices)


def check_seed(seed: int) -> None:
    """Refuses what the random generators refuse.

    Raises:
        InputError: ``seed`` is not from 0 to 2³² − 1.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be from 0 to {2**32 - 1}, got {seed}")


def _train(
    recipe: Recipe, out: Path, place: Place, progress: Progress, given: Given = Given()
) -> Checkpoint:
    def load() -> ScaleData:
        images = ScaleData(recipe.data, recipe.fit.batch_size, recipe.seed)
        if given.lesson is not None:
            images.learn_from(given.lesson)
        return images

    images = load() if place.rank else listing_skipped(load, out / SKIPPED)
    _check_batches(images, place)
    network = given.copy() or _network(recipe, images)
    draw_weights(network, recipe.fit.init)
    _try(network, images, recipe)
    _try_alone(network, images, recipe)
    # Channels-last is the faster layout for convolutions on CPUs and GPUs alike.
    for tensor in (*network.parameters(), *network.buffers()):
        # Module.to refuses filters over scale, which have five dimensions. `to`, not `contiguous`, which
        # leaves filters of one channel as they are: another layout rounds otherwise.
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    if place.world > 1:
        join_batch_norms(network)
    figures = recipe.model.normalisation() or images.normalisation()
    taught = network if figures is None else Normalised(network, figures)
    classifier = Classifier(taught, recipe.fit, len(images.class_names), recipe.seed)
    if recipe.trainer.compile:
        taught.compile()  # in place: names of weights stay what they are
    _fit(classifier, images, recipe, out, place, progress)
    if place.rank:
        return _await(out)
    kept, finished = _finished(recipe, images, out, given)
    save_checkpoint(
        out / WEIGHTS,
        finished,
        {
            "recipe": recipe.as_dict(),
            "in_chans": images.in_chans,
            "class_names": list(images.class_names),
            "normalisation": None if figures is None else dataclasses.asdict(figures),
            "colours": None if (c := images.colours()) is None else dataclasses.asdict(c),
            "edition": images.edition,
            "data": {k: v for k, v in images.fingerprint().items() if k != "lesson"},
            **versions(),
            "best_epoch": kept.epoch + 1,
            "validation_loss": kept.loss,
            "validation_accuracy": kept.accuracy,
        },
    )
    return load_checkpoint(out / WEIGHTS, given.copy())


def _network(recipe: Recipe, images: ScaleData) -> nn.Module:
    return make_network(
        recipe.model,
        len(images.class_names),
        images.in_chans,
        side=max(recipe.data.protocol.canvas_size),
    )


def _finished(recipe: Recipe, images: ScaleData, out: Path, given: Given) -> tuple[Kept, nn.Module]:
    """The kept figures, and their weights in a fresh network, untouched by compiling, joining or sharing out.

    The figures are those beside the weights: a run that was killed between ``best.ckpt`` and ``last.ckpt``,
    on hardware that does not repeat bits, may have gone on without finding that epoch the best again.
    """
    best = read_best(out)
    assert best is not None
    kept, weights = best
    network = given.copy() or _network(recipe, images)
    network.load_state_dict(weights)
    return kept, network


def _await(out: Path) -> Checkpoint:
    """The network that the first process writes."""
    waited = time.monotonic()
    while not (out / WEIGHTS).exists():
        if time.monotonic() - waited > _PATIENCE:
            raise InputError(
                f"{out / WEIGHTS}, which the first process writes, did not appear; put {out} on a disk "
                f"that all machines share"
            )
        time.sleep(0.05)
    return load_checkpoint(out / WEIGHTS)


def _check_batches(images: ScaleData, place: Place) -> None:
    """Refuses batches too small to be shared out."""
    count, smallest = len(images.indices["train"]), _smallest(images)
    if (smallest + 1) // 2 < place.world:
        raise InputError(
            f"{place.world} processes share a batch in pairs of images, but the last of {count} training "
            f"images in batches of {images.batch_size} has {smallest}; choose another fit.batch_size or "
            f"data.train"
        )


def _smallest(images: ScaleData) -> int:
    """How many images the smallest training batch has: the last, or all alike."""
    return len(images.indices["train"]) % images.batch_size or images.batch_size


def _fit(
    classifier: Classifier,
    images: ScaleData,
    recipe: Recipe,
    out: Path,
    place: Place,
    progress: Progress,
) -> None:
    """Trains, or goes on with it."""
    state = read_last(out, versions())
    data = images.fingerprint()
    changed = "" if state is None else what_changed(state.get("data"), data)  # older states lack it
    if changed:
        raise InputError(
            f"the images of {recipe.data.source} are not those that the run in {out} began with: {changed}; "
            f"put them back as they were to go on, or train anew in another folder with --out"
        )
    rows = MetricsLog(out / "metrics.csv", [] if state is None else state["rows"])
    keeper = Keeper(recipe, out, rows, state, {"data": data, "versions": versions()}, progress)
    if state is not None:
        classifier.load_state_dict(state["module"])
        images.begin_at(state["epoch"], state["batch"])
    if state is None or state["epoch"] < recipe.fit.epochs:
        loggers: list[Logger] = [rows]
        if recipe.trainer.tensorboard:
            steps = 0 if state is None else state["steps"]
            # What was logged after the state was written is logged again.
            loggers.append(TensorBoardLogger(out, "tensorboard", "", purge_step=steps))
        place.meet()
        run_trainer(classifier, images, recipe, out, place, keeper, loggers)
    if keeper.kept.epoch < 0 or (
        recipe.fit.keep == "last" and keeper.kept.epoch + 1 < recipe.fit.epochs
    ):
        when = "in any epoch" if keeper.kept.epoch < 0 else "in the last epoch"
        raise InputError(
            f"the loss of {recipe.model.name} was not a finite number {when}: training "
            f"diverged; lower fit.lr (now {recipe.fit.lr})"
        )


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


def _try_alone(network: nn.Module, images: ScaleData, recipe: Recipe) -> None:
    """A batch of one image through the network as in training, where there will be one.

    A batch norm over one value a channel has nothing to norm by.
    """
    if _smallest(images) > 1:
        return
    image = images.images("train", recipe.data.protocol.train_scales[0], first=1)
    try:
        with isolate_rng(), torch.no_grad():
            copy.deepcopy(network).train()(image)
    except Exception as cause:
        raise InputError(
            f"model {recipe.model.name!r} cannot be trained on a batch of 1 image, which the last of "
            f"{len(images.indices['train'])} training images in batches of {images.batch_size} is: {cause}; "
            f"choose another fit.batch_size or data.train"
        ) from cause


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
