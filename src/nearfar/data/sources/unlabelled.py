"""Images that nobody has labelled."""

from __future__ import annotations

from pathlib import Path

import torch

from nearfar.data.skipped import refuse_too_many
from nearfar.data.sources.decoding import Square
from nearfar.data.sources.files import image_files, read_images
from nearfar.data.sources.labelled import LabelledImages
from nearfar.errors import InputError

__all__ = ["unlabelled_source"]


def unlabelled_source(
    root: Path | None, place: Square, max_skipped: float = 0.01
) -> LabelledImages:
    """Reads all images in a folder and below it; all of them are of the one class "unlabelled".

    For what needs images and no answers: batch-norm statistics, and training by a teacher.

    Args:
        root: the folder.
        place: the square on which every image is stored.
        max_skipped: the share of the images that may be left out because they cannot be read.

    Raises:
        InputError: no ``root``, no image in it, too many that cannot be read, or too many for memory.
    """
    if root is None or not root.is_dir():
        raise InputError(f"unlabelled images need as their root an existing folder, got {root}")
    paths = image_files(root)
    read = read_images(paths, place, "take fewer of them, or a smaller data.size", reduced=True)
    refuse_too_many(read.skipped, len(paths), max_skipped)
    labels = torch.zeros(len(read.images), dtype=torch.int64)
    return LabelledImages(read.images, labels, ("unlabelled",), skipped=read.skipped)
