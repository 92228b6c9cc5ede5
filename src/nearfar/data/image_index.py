"""ImageIndex: which images a source has and of which classes, before any of them is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from nearfar.data.image_dataset import LabelledImages
from nearfar.data.stored_images import ImageEntry, hold_images, stream_images
from nearfar.data.unreadable import UnreadableFilesError, refuse_too_many
from nearfar.errors import InputError

__all__ = ["ImageIndex"]


@dataclass(frozen=True)
class ImageIndex:
    """Images by where they are.

    Attributes:
        entries: one an image.
        labels: as many.
        class_names: what the labels stand for, in order.
        test_from: where the official test part begins, if there is one.
        encoded_bytes: of all files together, where that is known.
    """

    entries: Sequence[ImageEntry]
    labels: Sequence[int]
    class_names: tuple[str, ...]
    test_from: int | None = None
    encoded_bytes: int = 0

    def load(self, identity: str, max_skipped: float, *, in_memory: bool) -> LabelledImages:
        """The dataset of those images that can be read.

        Args:
            identity: of the files' content, for the cache.
            max_skipped: which share of all images may be left out because they cannot be read.
            in_memory: hold the decoded images, unless they need more than 4 GiB; else they are streamed.

        Raises:
            InputError: a class without a training image.
            UnreadableFilesError: more cannot be read, or a class has none left to train on.
        """
        trained = set(self.labels[: self.test_from])
        bare = [name for i, name in enumerate(self.class_names) if i not in trained]
        if bare:
            raise InputError(
                f"{', '.join(bare)}: a class that has no training image; add some, or take it from the "
                f"classes (from classes.txt; where numbers stand for classes, leave no gap from 0 on)"
            )
        read = (
            partial(hold_images, encoded_bytes=self.encoded_bytes) if in_memory else stream_images
        )
        images, indices, faults = read(self.entries, identity)
        skipped = tuple((str(self.entries[fault.index]), fault.why) for fault in faults)
        refuse_too_many(skipped, len(self.entries), max_skipped)
        labels = torch.tensor(self.labels, dtype=torch.int64)[indices]
        test_from = None if self.test_from is None else int((indices < self.test_from).sum())
        trained = set(labels[:test_from].tolist())
        missing = [name for i, name in enumerate(self.class_names) if i not in trained]
        if missing:
            raise UnreadableFilesError(
                f"no image of {', '.join(missing)} can be read; repair them, or remove the class",
                skipped,
            )
        return LabelledImages(images, labels, self.class_names, test_from, skipped=skipped)
