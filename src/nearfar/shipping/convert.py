"""``nearfar convert``: a trained network becomes its scale-aware twin, and is held against what it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.auditing import Audit, audit
from nearfar.conversion import Conversion, Method, Plan, convert_network
from nearfar.conversion import recalibrate as new_statistics
from nearfar.data import DataSpec, Lesson, Normalisation, Normalised, ScaleData
from nearfar.data.skipped import SKIPPED, list_skipped, listing_refused, say_skipped
from nearfar.errors import InputError
from nearfar.models import HierarchicalNet, Integration, Vote
from nearfar.progress import Progress, Step, silent
from nearfar.recognisers import Model, Recogniser, open_recogniser
from nearfar.shipping.conversion_data import UNLABELLED, held_out, images_for, lesson_of
from nearfar.shipping.conversion_folder import claim, is_free, write_conversion
from nearfar.shipping.conversion_result import ConvertResult
from nearfar.shipping.origin import Origin, origin_of
from nearfar.training import FitSpec, Recipe, TrainerSpec, train_recipe

__all__ = ["FINETUNE", "SCALES", "convert"]

#: At which scales the original and the result are compared.
SCALES = (0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)
#: The short training after a conversion.
FINETUNE = FitSpec(epochs=10, batch_size=64, lr=0.001, keep="last")
#: By how much fine-tuning changes the size of each training image, unless the data say otherwise.
RANDOM_SCALE = (0.4, 2.0)
_BATCH = 128
_KEPT_STATISTICS = (
    "Batch norms keep the statistics of the training, which showed them all sizes that the levels show: new "
    "ones, from images at scale 1 alone, would fit worse."
)


def convert(
    model: Model,
    method: Method,
    *,
    data: DataSpec | None = None,
    recalibrate: bool = False,
    finetune: bool = False,
    fit: FitSpec = FINETUNE,
    distill: float | None = None,
    layers: tuple[str, ...] = (),
    scales: tuple[float, ...] = (),
    vote: Vote | None = None,
    window: Literal["image", "all", "fixed"] | None = None,
    stages: int | None = None,
    integration: Integration | None = None,
    max_loss: float = 0.01,
    check: int = 2000,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    size: int | None = None,
    num_classes: int | None = None,
    seed: int = 0,
    out: Path | str | None = Path("runs/convert"),
    progress: Progress = silent,
) -> ConvertResult:
    """Converts a trained network into a scale-aware one, and says what that did.

    The network given is not changed. Right after converting, a network's batch norms no longer fit what
    they meet: ``recalibrate`` gives them new statistics, from images without labels. ``finetune`` trains
    for a few epochs, on images shown at 0.4 to 2 times their size (``data.random_scale`` sets other
    bounds), with their labels or, where they have none (``data.source: unlabelled``), with the
    original's answers to them at scale 1. A ``pyramid-ensemble`` is trained as the one network that it
    is, unless its vote is learnt, and put over the pyramid afterwards. With ``data``, the original and
    the result are then compared at eight scales on images that were kept out of all of this.

    The folder ``out`` gets ``weights.safetensors``, ``report.md``, ``report.json``, with ``finetune`` the
    training's own folder ``training/``, and where images cannot be read their list ``skipped.csv``. A
    result that is worse than the original at scale 1 by more than ``max_loss`` is written, but is not
    ``accepted``: the command line says so and ends with exit status 1.

    Args:
        model: what :func:`nearfar.recognisers.open_recogniser` takes and is a network: a checkpoint, a
            name with weights (``resnet18@FILE``, ``resnet18@pretrained``), a ``package.module:network``
            or the ``nn.Module`` itself.
        method: ``si``, ``pyramid-ensemble``, ``wsms`` or ``antialias``, as in
            :class:`nearfar.conversion.Conversion`.
        data: images to recalibrate, train and compare on; default: those that a checkpoint of
            nearfar's was trained on, and else none. How they are shown is the network's affair:
            ``data.protocol`` is left out.
        recalibrate: give batch norms new statistics, before any training. A ``pyramid-ensemble`` that
            is trained needs none and keeps the training's, which the report says.
        finetune: train on.
        fit: how; a short training by default.
        distill: share of the original's answers in what is taught, from 0 (labels alone) to 1. Default:
            0 with labels, 1 without.
        layers, scales, vote, window, stages, integration: settings of the method.
        max_loss: how much accuracy (without labels: agreement with the original) at scale 1 may be
            lost, as a fraction.
        check: how many images to compare on, at most.
        mean, std, size, num_classes: of the network, as in ``open_recogniser``.
        seed: of training.
        out: folder to write; ``None`` writes nothing.
        progress: called after each epoch and each batch compared.

    Raises:
        InputError: a network that cannot be converted that way (the message names the ways that can),
            settings that do not fit, missing data, or an ``out`` that holds something else.
    """
    _check(recalibrate, finetune, fit, distill, max_loss, check)
    opened = open_recogniser(model, mean, std, size, num_classes)
    origin = origin_of(opened)
    conversion = Conversion(
        method, layers or None, scales or None, vote, window, stages, integration
    )
    side = opened.card.protocol.canvas
    converted, plan = convert_network(origin.network, conversion, side)
    spec = dataclasses.replace(origin.spec, convert=conversion)
    if data is None and origin.data is not None:
        data = origin.data
    if data is None and (recalibrate or finetune):
        raise InputError(
            "recalibrating and fine-tuning need images; give data, such as a folder of them"
        )
    images = None
    if data is not None:
        images = _images(data, opened, RANDOM_SCALE if finetune else None, check, out)
    others = {"recalibrate": recalibrate, "distill": distill, "seed": seed}
    with claim(out, conversion, origin, images, fit if finetune else None, others) as folder:
        if images is not None:
            list_skipped(images.skipped, folder / SKIPPED)
        alone = finetune and _is_trained_alone(conversion)
        if recalibrate and images is not None and not alone:
            progress(Step("recalibrating", 0, 1))
            new_statistics(_whole(converted, origin.figures), _batches(images))
        recipe = None
        if images is not None:
            recipe = Recipe(spec, images.spec, fit, seed, TrainerSpec())
        if finetune and images is not None and recipe is not None:
            _check_numbers(origin.network)
            lesson = lesson_of(opened, images, distill)
            place = folder / "training"
            if alone:
                inside = dataclasses.replace(recipe, model=origin.spec)
                taught = _taught(origin.network, lesson, inside, place, progress)
                converted, plan = convert_network(taught, conversion, side)
                if recalibrate:
                    plan = dataclasses.replace(plan, notes=(*plan.notes, _KEPT_STATISTICS))
            else:
                converted = _taught(converted, lesson, recipe, place, progress)
        if images is not None and images.skipped:
            left_out = say_skipped(images.skipped, images.fingerprint()["images"])
            plan = dataclasses.replace(plan, notes=(*plan.notes, left_out))
        _as_before(converted, origin.network, conversion)
        result = _compared(opened, converted, plan, origin, images, max_loss, progress)
        if out is not None:
            path = write_conversion(folder, result, converted, spec, recipe, images)
            result = dataclasses.replace(result, path=path)
    return result


def _images(
    data: DataSpec,
    opened: Recogniser,
    random_scale: tuple[float, float] | None,
    check: int,
    out: Path | str | None,
) -> ScaleData:
    load = partial(images_for, data, opened, random_scale, check)
    # What is in another folder stays as it is until the settings are found to be its own.
    if out is None or not is_free(Path(out)):
        return load()
    return listing_refused(load, Path(out) / SKIPPED)


def _check_numbers(network: nn.Module) -> None:
    wrong = {p.dtype for p in network.parameters()} - {torch.float32}
    if wrong or any(p.device.type != "cpu" for p in network.parameters()):
        raise InputError(
            "fine-tuning starts from float32 weights on the CPU; convert network.float().cpu() and move the "
            "result back"
        )


def _is_trained_alone(conversion: Conversion) -> bool:
    """Whether the network is trained before it is put over a pyramid.

    What the levels show it are other sizes, which is what augmentation shows it too, for the cost of one
    level; only a vote that is learnt needs all of them at once.
    """
    return conversion.method == "pyramid-ensemble" and conversion.vote != "learned"


def _as_before(converted: nn.Module, before: nn.Module, conversion: Conversion) -> None:
    """Every module in the mode that it had; new ones in that of the whole."""
    converted.train(before.training)
    inside = converted.net if isinstance(converted, HierarchicalNet) else converted
    modes = {name: module.training for name, module in before.named_modules()}
    if conversion.method != "wsms":
        for name, module in inside.named_modules():
            module.training = modes.get(name, before.training)


def _taught(
    network: nn.Module, lesson: Lesson | None, recipe: Recipe, place: Path, progress: Progress
) -> nn.Module:
    """A network trained on, without its normalisation."""
    found = train_recipe(recipe, place, progress, network, lesson).model
    return found.network if isinstance(found, Normalised) else found


def _check(
    recalibrate: bool,
    finetune: bool,
    fit: FitSpec,
    distill: float | None,
    max_loss: float,
    check: int,
) -> None:
    if fit != FINETUNE and not finetune:
        raise InputError("fit says how to train on; give finetune too, or leave it out")
    if fit.init != "default":
        raise InputError(
            f"fit.init={fit.init!r} would draw new weights in place of the trained ones; leave it out"
        )
    if distill is not None and not (finetune and 0 <= distill <= 1):
        raise InputError(
            f"distill is a share from 0 to 1 and belongs to finetune, got distill={distill} with "
            f"finetune={finetune}"
        )
    if not 0 <= max_loss <= 1 or check < 1:
        raise InputError(
            f"max_loss is a fraction from 0 to 1 and check at least 1 image, got max_loss={max_loss} and "
            f"check={check}"
        )


def _whole(network: nn.Module, figures: Normalisation | None) -> nn.Module:
    """A network with what normalises its input."""
    if figures is None:
        return network
    first = next(p for p in network.parameters())
    return Normalised(network, figures).to(first.device, first.dtype)


def _batches(images: ScaleData) -> Iterator[Tensor]:
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


def _compared(
    opened: Recogniser,
    converted: nn.Module,
    plan: Plan,
    origin: Origin,
    images: ScaleData | None,
    max_loss: float,
    progress: Progress,
) -> ConvertResult:
    whole = _whole(converted, origin.figures)
    labelled = images is not None and images.spec.source != UNLABELLED
    card = dataclasses.replace(
        opened.card, name=f"{opened.name}, converted by {plan.conversion.method}"
    )
    if images is not None and labelled:  # weights alone do not say what their classes are called
        card = dataclasses.replace(card, class_names=images.class_names)
    twin = Recogniser(card, whole, whole)
    found: Audit | None = None
    if images is not None:
        both = {"original": opened, "converted": twin}
        found = audit(both, held_out(images, opened), scales=SCALES, flips=0, progress=progress)
    return ConvertResult(twin, plan, found, max_loss, labelled, rebuilt=origin.rebuilt)
