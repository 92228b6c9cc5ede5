"""``nearfar convert``: a trained network becomes its scale-aware twin, and is compared with what it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.auditing import Audit, AuditSpec, audit
from nearfar.classifiers import Classifier, InputOptions, Model, load_classifier
from nearfar.conversion import ConversionMethod, Plan, as_method, convert_network
from nearfar.conversion import recalibrate as new_statistics
from nearfar.conversion.replacement import copy_network
from nearfar.data import DataSpec, Normalisation, Normalised, ScaleDataModule, SoftLabels
from nearfar.data.unreadable import SKIPPED, describe_skipped, list_skipped, listing_refused
from nearfar.deploy.conversion_data import UNLABELLED, held_out, images_for, soft_labels_of
from nearfar.deploy.conversion_folder import claim, is_free, write_conversion
from nearfar.deploy.conversion_result import ConvertResult
from nearfar.deploy.conversion_settings import CheckSpec, FinetuneSpec
from nearfar.deploy.origin import Origin, digest, origin_of
from nearfar.errors import InputError
from nearfar.progress import Progress, Step, silent
from nearfar.training import ModelSpec, Recipe, TrainerSpec, train_recipe

__all__ = ["SCALES", "convert"]

#: At which scales the original and the result are compared.
SCALES = (0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)
_BATCH = 128
_OLD_STATISTICS = (
    "Batch norms keep the statistics of the training, which showed them all sizes that the levels show: new "
    "ones, from images at scale 1 alone, would fit worse."
)


def convert(
    model: Model,
    method: ConversionMethod | str,
    *,
    data: DataSpec | None = None,
    recalibrate: bool = False,
    finetune: FinetuneSpec | bool = False,
    check: CheckSpec | None = None,
    inputs: InputOptions | None = None,
    out: Path | str | None = Path("runs/convert"),
    progress: Progress = silent,
) -> ConvertResult:
    """Converts a trained network into a scale-aware one, and says what that did.

    The network given is not changed. Right after converting, a network's batch norms no longer fit what
    they meet: ``recalibrate`` gives them new statistics, from images without labels. ``finetune`` trains
    for a few epochs, on images at 0.4 to 2 times their size (``fixres``: at their size; or
    ``data.random_scale``), with their labels or,
    where there are none (``data.source: unlabelled``), with the original's predictions at scale 1. A
    ``pyramid-ensemble`` is trained as one network, unless its reduction is learnt, and put over the pyramid
    afterwards. With ``data``, both are compared at eight scales on images that were not used for any of this.

    The folder ``out`` gets ``weights.safetensors``, ``report.md``, ``report.json``, with ``finetune`` the
    training's own folder ``training/``, and where images cannot be read their list ``skipped.csv``. A
    result that is worse than the original at scale 1 by more than ``check.max_loss`` is written, but is not
    ``accepted``.

    Args:
        model: what :func:`nearfar.classifiers.load_classifier` takes and is a network: a checkpoint, a
            name with weights (``resnet18@FILE``, ``resnet18@pretrained``), a ``package.module:network``
            or the ``nn.Module`` itself.
        method: one of :mod:`nearfar.conversion` with its settings, such as ``SILayers(scales=(0.5, 1, 2))``,
            or a name: ``si``, ``pyramid-ensemble``, ``wsms``, ``antialias``, ``fixres``,
            ``package.module:Class``.
        data: images to recalibrate, train and compare on; default: those that a checkpoint was trained on,
            else none. The network says how they are prepared: leave ``data.protocol`` out.
        recalibrate: give batch norms new statistics, before any training. A ``pyramid-ensemble`` that
            is trained needs none and keeps the training's, which the report says.
        finetune: whether to train on, and how.
        check: how to compare; default: ``CheckSpec()``.
        inputs: what the model does not say about its images.
        out: folder to write; ``None`` writes nothing.
        progress: called after each epoch and each batch compared.

    Raises:
        InputError: a network that cannot be converted that way, settings that do not fit, missing data, or an
            ``out`` that holds something else.
    """
    tuning = FinetuneSpec() if finetune is True else finetune or None
    check, inputs = check or CheckSpec(), inputs or InputOptions()
    conversion = as_method(method, imports=True)
    opened = load_classifier(model, **dataclasses.asdict(inputs))
    origin = origin_of(opened)
    side = max(opened.input_spec.protocol.canvas_size)
    converted, plan = convert_network(origin.network, conversion, side)
    if data is None and origin.data is not None:
        data = origin.data
    if data is None and (recalibrate or tuning):
        raise InputError("recalibrating and fine-tuning need images; give data, such as a folder")
    images = None
    if data is not None:
        images = _images(
            data, opened, conversion.random_scale if tuning else None, check.images, out
        )
    job = _Job(opened, origin, conversion, recalibrate, tuning, images, progress)
    with claim(out, job.settings()) as folder:
        if images is not None:
            list_skipped(images.skipped, folder / SKIPPED)
            converted, plan = job.adapted(converted, plan, images, folder)
        result = job.compared(converted, plan, check.max_loss)
        if out is not None:
            prints = None if images is None else images.fingerprint()
            path = write_conversion(folder, result, converted, job.spec, job.recipe, prints)
            result = dataclasses.replace(result, path=path)
    return result


def _images(
    data: DataSpec,
    opened: Classifier,
    random_scale: tuple[float, float] | None,
    check: int,
    out: Path | str | None,
) -> ScaleDataModule:
    load = partial(images_for, data, opened, random_scale, check)
    # What is in another folder stays as it is until the settings turn out to be its own.
    if out is None or not is_free(Path(out)):
        return load()
    return listing_refused(load, Path(out) / SKIPPED)


@dataclass(frozen=True)
class _Job:
    """One conversion: the original, how it is converted, and what the result learns from."""

    opened: Classifier
    origin: Origin
    conversion: ConversionMethod
    recalibrate: bool
    tuning: FinetuneSpec | None
    images: ScaleDataModule | None
    progress: Progress

    @property
    def spec(self) -> ModelSpec:
        """What builds the converted network."""
        return dataclasses.replace(self.origin.spec, convert=self.conversion)

    @property
    def recipe(self) -> Recipe | None:
        """Of the training, or what it would have been; ``None`` without images."""
        if self.images is None:
            return None
        tuning = self.tuning or FinetuneSpec()
        return Recipe(self.spec, self.images.spec, tuning.fit, tuning.seed, TrainerSpec())

    def settings(self) -> dict[str, Any]:
        """What decides the outcome, as plain data."""
        tuning, images = self.tuning or FinetuneSpec(), self.images
        return {
            "model": dataclasses.asdict(self.origin.spec),
            "conversion": self.conversion.as_dict(),
            "data": None if images is None else dataclasses.asdict(images.spec),
            "weights": digest(self.origin.network),
            "images": None if images is None else images.fingerprint(),
            "fit": dataclasses.asdict(tuning.fit) if self.tuning else None,
            "recalibrate": self.recalibrate,
            "distill": tuning.distill,
            "seed": tuning.seed,
        }

    def adapted(
        self, converted: nn.Module, plan: Plan, images: ScaleDataModule, folder: Path
    ) -> tuple[nn.Module, Plan]:
        """The converted network with new statistics and trained on, as far as that was asked for."""
        original_is_trained = self.tuning is not None and self.conversion.trains_original
        if self.recalibrate and not original_is_trained:
            self.progress(Step("recalibrating", 0, 1))
            new_statistics(_normalised(converted, self.origin.figures), _batches(images))
        if self.tuning is not None and self.recipe is not None:
            _check_numbers(self.origin.network)
            soft_labels = soft_labels_of(self.opened, images, self.tuning.distill)
            if original_is_trained:
                recipe = dataclasses.replace(self.recipe, model=self.origin.spec)
                original = copy_network(self.origin.network)
                trained = _trained(
                    original, soft_labels, recipe, folder / "training", self.progress
                )
                side = max(self.opened.input_spec.protocol.canvas_size)
                converted, plan = convert_network(trained, self.conversion, side)
                if self.recalibrate:
                    plan = dataclasses.replace(plan, notes=(*plan.notes, _OLD_STATISTICS))
            else:
                out = folder / "training"
                converted = _trained(converted, soft_labels, self.recipe, out, self.progress)
        if images.skipped:
            note = describe_skipped(images.skipped, images.fingerprint()["images"])
            plan = dataclasses.replace(plan, notes=(*plan.notes, note))
        return converted, plan

    def compared(self, converted: nn.Module, plan: Plan, max_loss: float) -> ConvertResult:
        """The original and the converted network on the same images."""
        images, opened = self.images, self.opened
        whole = _normalised(converted, self.origin.figures)
        labelled = images is not None and images.spec.source != UNLABELLED
        name = f"{opened.name}, converted by {self.conversion.name}"
        input_spec = dataclasses.replace(opened.input_spec, name=name)
        if (
            images is not None and labelled
        ):  # weights alone do not say what their classes are called
            input_spec = dataclasses.replace(input_spec, class_names=images.class_names)
        twin = Classifier(input_spec, whole, whole)
        comparison: Audit | None = None
        if images is not None:
            models = {"original": opened, "converted": twin}
            test = held_out(images, opened)
            comparison = audit(
                models, test, AuditSpec(scales=SCALES, flips=0), progress=self.progress
            )
        rebuilt = self.origin.rebuilt
        return ConvertResult(twin, plan, comparison, max_loss, labelled, rebuilt=rebuilt)


def _check_numbers(network: nn.Module) -> None:
    wrong = {p.dtype for p in network.parameters()} - {torch.float32}
    if wrong or any(p.device.type != "cpu" for p in network.parameters()):
        raise InputError(
            "fine-tuning starts from float32 weights on the CPU; convert network.float().cpu() and move the "
            "result back"
        )


def _trained(
    network: nn.Module,
    soft_labels: SoftLabels | None,
    recipe: Recipe,
    out: Path,
    progress: Progress,
) -> nn.Module:
    """A network trained on, without its normalisation; every module in the mode that it had."""
    modes = {name: module.training for name, module in network.named_modules()}
    model = train_recipe(recipe, out, progress, network, soft_labels).model
    trained = model.network if isinstance(model, Normalised) else model
    for name, module in trained.named_modules():
        module.training = modes[name]
    return trained


def _normalised(network: nn.Module, figures: Normalisation | None) -> nn.Module:
    """A network with what normalises its input."""
    if figures is None:
        return network
    first = next(p for p in network.parameters())
    return Normalised(network, figures).to(first.device, first.dtype)


def _batches(images: ScaleDataModule) -> Iterator[Tensor]:
    """Training images at scale 1 in batches of about one size: all of them count alike."""
    before = torch.empty(0)
    for part in images.in_order("train"):
        if len(before) and len(part) < _BATCH:  # too few for statistics of their own
            before = torch.cat([before, part])
            continue
        yield from _about_alike(before)
        before = part
    yield from _about_alike(before)


def _about_alike(images: Tensor) -> Iterator[Tensor]:
    if len(images):
        yield from torch.tensor_split(images, max(1, len(images) // _BATCH))
