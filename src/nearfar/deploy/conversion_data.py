"""Images for a conversion: to recalibrate and train on, and others to compare on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.classifiers import Classifier
from nearfar.data import DataSpec, LabelledImages, ScaleDataModule, ScaleProtocol, SoftLabels
from nearfar.data.sources import is_own
from nearfar.errors import InputError

__all__ = ["UNLABELLED", "held_out", "images_for", "soft_labels_of"]

#: The source of images without labels.
UNLABELLED = "unlabelled"
_AT_ONCE = 128


def images_for(
    data: DataSpec,
    opened: Classifier,
    random_scale: tuple[float, float] | None,
    check: int,
) -> ScaleDataModule:
    """Loads images as a network is shown them.

    Where a source has an official test part, the images to compare on come from there.

    Args:
        data: which images; their protocol is the network's.
        opened: the network.
        random_scale: what ``data`` does not say of augmentation; ``None`` for none.
        check: how many test images, at most.

    Raises:
        InputError: another protocol or normalisation asked for, or images of other classes or channels.
    """
    shown = opened.input_spec.protocol
    if data.protocol not in (ScaleProtocol(), shown):
        raise InputError(
            f"how images are shown is the network's affair ({shown.canvas}×{shown.canvas} pixels); leave "
            f"data.protocol out"
        )
    if data.normalize != "none":
        raise InputError(
            "the network normalises images as it was trained to; leave data.normalize out, and give mean and "
            "std where it does not know"
        )
    channels: Literal[1, 3] | None = None
    if opened.input_spec.in_chans in (1, 3):
        channels = cast("Literal[1, 3]", opened.input_spec.in_chans)
    spec = dataclasses.replace(
        data,
        protocol=shown,
        random_scale=None if data.exchange_sizes else data.random_scale or random_scale,
        validation=data.validation or None,
        channels=channels,
    )
    images = _loaded(spec)
    if len(images.indices["test"]) > check:
        images = _loaded(dataclasses.replace(images.spec, test=check))
    _check_fit(images, opened)
    return images


def _loaded(spec: DataSpec) -> ScaleDataModule:
    if spec.split is not None or is_own(spec.source):
        return ScaleDataModule(spec)
    try:
        return ScaleDataModule(dataclasses.replace(spec, split="official"))
    except InputError as cause:
        if "no official test part" not in str(cause):
            raise
        return ScaleDataModule(spec)


def _check_fit(images: ScaleDataModule, opened: Classifier) -> None:
    input_spec = opened.input_spec
    if images.in_chans != input_spec.in_chans:
        raise InputError(
            f"{opened.name} takes images of {input_spec.in_chans} channels, those of {images.spec.source} "
            f"have {images.in_chans}; convert it with images of its own kind"
        )
    if images.spec.source == UNLABELLED:
        return
    names = images.class_names
    known = input_spec.class_names
    if len(names) != input_spec.num_classes or (known is not None and known != names):
        raise InputError(
            f"{opened.name} knows {input_spec.num_classes} classes, {images.spec.source} has {len(names)}, "
            f"beginning with {', '.join(names[:3])}; give images of its own classes, or "
            f"data.source={UNLABELLED}"
        )


def soft_labels_of(
    opened: Classifier, images: ScaleDataModule, distill: float | None
) -> SoftLabels | None:
    """What a network teaches its twin: its answers to images at scale 1, mixed with their labels.

    Args:
        opened: the teacher.
        images: what it is asked about.
        distill: its share; default: 1 without labels, 0 with them.

    Returns:
        ``None`` where the labels alone are taught.
    """
    unlabelled = images.spec.source == UNLABELLED
    share = distill if distill is not None else float(unlabelled)
    if unlabelled and share < 1:
        raise InputError(
            f"images without labels are taught by the original's answers alone, got distill={share}; "
            f"leave it out"
        )
    if share == 0:
        return None
    shares = {}
    for split in ("train", "validation"):
        answers = torch.cat([opened.predict(part) for part in _parts(images, split)]).softmax(dim=1)
        if share < 1:
            labels = F.one_hot(images.labels(split), answers.shape[1])
            answers = share * answers + (1 - share) * labels
        shares[split] = answers
    return SoftLabels(shares, opened.input_spec.names() if unlabelled else images.class_names)


def held_out(images: ScaleDataModule, opened: Classifier) -> LabelledImages:
    """The images to compare on; without labels, those that the original sees in them at scale 1."""
    found = images.stored("test")
    if images.spec.source != UNLABELLED:
        return found
    answers = [opened.predict(part).argmax(dim=1) for part in _parts(images, "test")]
    return dataclasses.replace(
        found, labels=torch.cat(answers), class_names=opened.input_spec.names()
    )


def _parts(images: ScaleDataModule, split: str) -> Iterator[Tensor]:
    """A split's images at scale 1, some at a time."""
    return images.parts(split, 1.0, _AT_ONCE)
