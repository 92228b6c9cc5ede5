"""Image files into one tensor: bounded memory, and every file that cannot be read named."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from nearfar.errors import InputError

__all__ = ["MEMORY_BOUND", "exactly", "image_files", "read_images", "sub_folders"]

#: A source larger than this, in bytes of memory, is refused: it would have to be streamed.
MEMORY_BOUND = 4 * 2**30

_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
# Pillow's modes of 8 bits a channel. Others (16 bits, floats) it would cut off without a word.
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_NAMED = 5
_AT_ONCE = 128


def sub_folders(folder: Path) -> list[Path]:
    """Visible sub-folders in order of their names; none where there is no such folder."""
    if not folder.is_dir():
        return []
    # "__MACOSX" and the like are what archivers leave behind.
    visible = (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))
    return sorted(visible, key=lambda path: path.name)


def image_files(folder: Path) -> list[Path]:
    """Image files in a folder and below it, in order of their paths; other files are passed over.

    Raises:
        InputError: no such folder, or no image in it.
    """
    found = [
        Path(place) / name
        for place, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in _ENDINGS and not name.startswith(".")
    ]
    if not found:
        raise InputError(
            f"there is no image in {folder} (looked for {' '.join(sorted(_ENDINGS))}); add some, or "
            f"remove the folder"
        )
    return sorted(found, key=lambda path: path.as_posix())


def read_images(
    paths: Sequence[Path],
    side: int,
    place: Callable[[Tensor], Tensor],
    mend: str = "stream them once nearfar can",
    reduced: bool = False,
) -> Tensor:
    """Reads files into one tensor; several at a time, since decoding leaves Python's lock free.

    Grey images become RGB; what is transparent becomes black, as an empty canvas is. Of an
    animation the first picture counts. Files are turned as their EXIF data ask.

    Args:
        paths: what to read.
        side: height and width of what ``place`` returns.
        place: ``[3, h, w]`` uint8 as decoded → ``[3, side, side]`` uint8; a ``ValueError`` says
            why it cannot.
        mend: what to do about a data set too large, for the error text.
        reduced: JPEGs much larger than ``side`` may be decoded at ½, ¼ or ⅛ of their size, but
            not below twice ``side``: what a camera takes is then read several times faster.

    Returns:
        ``[N, 3, side, side]``, uint8.

    Raises:
        InputError: more than :data:`MEMORY_BOUND` would be needed, or files cannot be read (the
            first five are named).
    """
    needed = len(paths) * 3 * side * side
    if needed > MEMORY_BOUND:
        raise InputError(
            f"{len(paths)} images of 3×{side}×{side} need {needed / 2**30:.1f} GiB of memory, more than "
            f"the {MEMORY_BOUND / 2**30:g} GiB that a data set may take; {mend}"
        )
    images = torch.empty(len(paths), 3, side, side, dtype=torch.uint8)

    def read(first: int) -> list[str]:
        faults = []
        for i in range(first, min(first + _AT_ONCE, len(paths))):
            try:
                images[i] = place(_decoded(paths[i], 2 * side if reduced else None))
            # Pillow's readers raise whatever the damage made them trip over.
            except Exception as cause:
                faults.append(f"{paths[i]} ({cause})")
        return faults

    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        faults = list(chain.from_iterable(pool.map(read, range(0, len(paths), _AT_ONCE))))
    finally:  # an interruption does not wait for the rest
        pool.shutdown(cancel_futures=True)
    if faults:
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise InputError(
            f"{len(faults)} of {len(paths)} images cannot be read: {'; '.join(faults[:_NAMED])}{more}; "
            f"repair or remove them"
        )
    return images


def exactly(side: int) -> Callable[[Tensor], Tensor]:
    """A ``place`` for :func:`read_images` that only lets images of one size through."""

    def check(image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if (height, width) != (side, side):
            raise ValueError(f"it is {height}×{width} where {side}×{side} is expected")
        return image

    return check


def _decoded(path: Path, at_least: int | None) -> Tensor:
    """``[3, h, w]``, uint8."""
    with Image.open(path) as file:
        if file.mode not in _MODES:
            raise ValueError(f"its pixel format {file.mode} is not one of 8 bits a channel")
        if at_least is not None:
            file.draft(None, (at_least, at_least))
        image = ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
