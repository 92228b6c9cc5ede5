"""A user's own folder: a sub-folder a class, images of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nearfar.data.protocol import ScaleProtocol
from nearfar.data.sources.files import image_files, read_images, sub_folders
from nearfar.data.sources.labelled import LabelledImages
from nearfar.errors import InputError

__all__ = ["folder_source", "read_parts"]

_HELD_OUT = ("val", "validation", "valid", "test")


def folder_source(root: Path | None, size: int | None) -> LabelledImages:
    """Reads ``root/CLASS/*``, or ``root/train/CLASS/*`` with ``root/val`` or ``root/test`` beside it.

    The sub-folders' names, in order, are the classes. The official test part is ``test`` where there
    is one (then ``val`` belongs to the training part), else ``val``.

    Every image is stored at ``size × size``: its longer side fills ``size`` pixels, and it lies at
    the centre of a black square. That is how :class:`ScaleProtocol` shows an image, so an image shown
    later at ``size`` pixels or fewer looks as if it had been laid on the canvas directly, but for
    rounding to 256 grey levels and being resampled twice.

    Args:
        root: the folder.
        size: in pixels.

    Raises:
        InputError: no ``root`` or no ``size``, fewer than two classes, a class without images, a
            class that only the test part has, unreadable images, or too many for memory.
    """
    if root is None or not root.is_dir():
        raise InputError(
            f"a folder source needs as its root an existing folder with a sub-folder a class, got {root}"
        )
    if size is None or size < 1:
        raise InputError(f"a folder's images need a size of at least 1 pixel, got {size}")
    square = ScaleProtocol(canvas=size, content=size)

    def place(image: Tensor) -> Tensor:
        return square.render(image.unsqueeze(0), 1.0)[0].mul(255).round().to(torch.uint8)

    parts = {name: root / name for name in ("train", *_HELD_OUT) if sub_folders(root / name)}
    # Only together: there may be a class that is named "train".
    if "train" not in parts or len(parts) < 2:
        return read_parts([root], None, size, place, reduced=True)
    test = parts.pop("test", None) or parts.pop(list(parts)[-1])
    return read_parts(list(parts.values()), test, size, place, reduced=True)


def read_parts(
    training: Sequence[Path],
    test: Path | None,
    side: int,
    place: Callable[[Tensor], Tensor],
    reduced: bool = False,
) -> LabelledImages:
    """Reads folders with a sub-folder a class.

    Args:
        training: whose images make up the training part; their sub-folders are the classes.
        test: the official test part.
        side, place, reduced: as in :func:`nearfar.data.sources.files.read_images`.

    Raises:
        InputError: as :func:`folder_source` does.
    """
    names = sorted({folder.name for part in training for folder in sub_folders(part)})
    if len(names) < 2:
        raise InputError(
            f"{training[0]} needs at least two sub-folders, one a class, got {len(names)}"
            f"{f' ({names[0]})' if names else ''}"
        )
    number = {name: i for i, name in enumerate(names)}
    paths: list[Path] = []
    labels: list[int] = []
    test_from = None
    for part in (*training, *([] if test is None else [test])):
        if part == test:
            test_from = len(paths)
            if not sub_folders(part):
                raise InputError(f"{part} is missing, or has no sub-folder a class; add it")
        for folder in sub_folders(part):
            if folder.name not in number:
                raise InputError(
                    f"{folder} is a class that {training[0]} does not have; add images of it there, or "
                    f"remove the folder"
                )
            found = image_files(folder)
            paths += found
            labels += [number[folder.name]] * len(found)
    mend = "take a smaller data.size (or canvas and content), or fewer images"
    mend += "; nearfar cannot stream images yet"
    images = read_images(paths, side, place, mend, reduced)
    return LabelledImages(images, torch.tensor(labels), tuple(names), test_from)
