"""Images for a wrapper: some to choose levels on, others to compare on."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearfar.auditing import ImageSelection
from nearfar.auditing.audited_images import AuditedImages, Data, choose_images
from nearfar.auditing.audited_models import AuditedModel
from nearfar.classifiers import Classifier
from nearfar.data import DataSpec, LabelledImages
from nearfar.data.image_dataset import take_images
from nearfar.data.sources import load_source
from nearfar.data.splits import stratified_order
from nearfar.deploy.conversion_data import UNLABELLED
from nearfar.errors import InputError

__all__ = ["WrapImages", "images_to_wrap_on"]

_AT_ONCE = 128


@dataclass(frozen=True)
class WrapImages:
    """Images in two disjoint parts.

    Attributes:
        every: all that may be used.
        choose, check: where in these the images are to choose levels on, and to compare on.
        weights: ``[len(choose)]``: how sure the network is of the answer that counts as right; ``None`` where
            there are labels.
    """

    every: AuditedImages
    choose: Tensor
    check: Tensor
    weights: Tensor | None = None

    @property
    def labelled(self) -> bool:
        """Whether right is what labels say, and not what the network answers at scale 1."""
        return self.weights is None

    def held_out(self) -> LabelledImages:
        """The images to compare on."""
        images, labels = take_images(self.every.images, self.check), self.every.labels[self.check]
        return LabelledImages(images, labels, self.every.class_names, test_from=0)

    def fingerprint(self) -> dict[str, Any]:
        """Tells these images from others, as plain data."""
        checksum = hashlib.sha256(self.every.labels.numpy().tobytes())
        checksum.update(self.every.which.numpy().tobytes())
        return {
            "source": self.every.source,
            "images": [len(self.choose), len(self.check)],
            "sha256": checksum.hexdigest(),
        }


def images_to_wrap_on(
    images: Data, opened: Classifier, selection: ImageSelection, choose_on: int, check: int
) -> WrapImages:
    """Finds images that the network has not been trained on, as far as that is known, and parts them.

    Args:
        images: as :func:`nearfar.audit` takes them, or the source ``unlabelled``.
        opened: the network.
        selection: which of them.
        choose_on, check: how many images each part has at most.

    Raises:
        InputError: as of :func:`nearfar.audit`, or fewer than 20 images.
    """
    model = AuditedModel(opened.name, opened, opened.input_spec.protocol)
    confidence = None
    spec = DataSpec(UNLABELLED) if isinstance(images, str) and images == UNLABELLED else images
    if isinstance(spec, DataSpec) and spec.source == UNLABELLED:
        root, most = selection.root or spec.root, selection.max_skipped or spec.max_skipped
        images, confidence = _answered(model, root, most, choose_on + check)
        selection = dataclasses.replace(selection, root=None, max_skipped=None)
    every = choose_images(images, [model], selection)
    if len(every) < 20:
        raise InputError(
            f"a wrapper needs at least 20 images, 10 to choose levels on and 10 to compare on, got "
            f"{len(every)} of {every.source}"
        )
    order = stratified_order(every.labels)
    count = min(choose_on, len(order) // 2)
    parts = order[:count], order[count : count + check]
    weights = None if confidence is None else confidence[every.which[parts[0]]]
    return WrapImages(every, *parts, weights)


def _answered(
    model: AuditedModel, root: Path | None, max_skipped: float | None, count: int
) -> tuple[LabelledImages, Tensor]:
    """Unlabelled images with the network's own answers at scale 1 as labels, and how sure it is of each."""
    loaded = load_source(UNLABELLED, root, 0, max_skipped)
    draw = torch.randperm(len(loaded.labels), generator=torch.Generator().manual_seed(0))[:count]
    probabilities = torch.cat(
        [
            model.classifier.predict(model.show(loaded.images[at], 1.0)).softmax(1)
            for at in torch.split(draw, _AT_ONCE)
        ]
    )
    confidence, labels = probabilities.max(dim=1)
    names = model.classifier.input_spec.names()
    drawn = LabelledImages(take_images(loaded.images, draw), labels, names, skipped=loaded.skipped)
    return drawn, confidence
