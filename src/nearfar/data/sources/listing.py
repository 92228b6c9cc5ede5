"""Which images a source has, of which classes, before any of them is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from nearfar.data.skipped import Skipped, UnreadableFilesError, refuse_too_many
from nearfar.data.sources.labelled import LabelledImages, StoredImages
from nearfar.errors import InputError

__all__ = ["Listing"]

_Where = TypeVar("_Where")


@dataclass(frozen=True)
class Listing(Generic[_Where]):
    """Images by where they are.

    Attributes:
        where: an entry an image.
        labels: as many.
        class_names: what the labels stand for, in order.
        test_from: where the official test part begins, if there is one.
    """

    where: Sequence[_Where]
    labels: Sequence[int]
    class_names: tuple[str, ...]
    test_from: int | None

    def with_images(
        self,
        images: StoredImages,
        kept: Tensor,
        skipped: Skipped,
        max_skipped: float,
        sides: Tensor | None = None,
    ) -> LabelledImages:
        """The listing as a data set of those images that can be read.

        Args:
            images: they.
            kept: ``[N]``, which entries they are, ascending.
            skipped: the others.
            max_skipped: which share of all they may be.
            sides: ``[N, 2]``, those of the images as they were before they were stored.

        Raises:
            InputError: a class without a training image.
            UnreadableFilesError: they are more, or a class has none left to train on.
        """
        there = set(self.labels[: self.test_from])
        bare = [name for i, name in enumerate(self.class_names) if i not in there]
        if bare:
            raise InputError(
                f"{', '.join(bare)}: a class that has no training image; add some, or take it from the "
                f"classes (from classes.txt; where numbers stand for classes, leave no gap from 0 on)"
            )
        refuse_too_many(skipped, len(self.where), max_skipped)
        labels = torch.tensor(self.labels)[kept]
        from_here = None if self.test_from is None else int((kept < self.test_from).sum())
        taught = set(labels[:from_here].tolist())
        gone = [name for i, name in enumerate(self.class_names) if i not in taught]
        if gone:
            raise UnreadableFilesError(
                f"no image of {', '.join(gone)} can be read; repair them, or remove the class",
                skipped,
            )
        return LabelledImages(
            images, labels, self.class_names, from_here, skipped=skipped, sides=sides
        )
