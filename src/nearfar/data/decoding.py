"""One image file as a tensor: what is taken, what is refused, and why."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

__all__ = [
    "PIXEL_LIMIT",
    "Fault",
    "decode",
    "quiet_pillow",
]

#: Images of more pixels are refused: a small file can hold more of them than memory does.
PIXEL_LIMIT = 100_000_000


# Pillow's modes of 8 bits a channel. Others (16 bits, floats) it would cut off without a word.
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}


def decode(source: Path | IO[bytes]) -> Tensor:
    """Reads an image.

    Grey images become RGB; what is transparent becomes black, as an empty canvas is. Images are turned
    as their EXIF data ask.

    Args:
        source: a path, or an open file.

    Returns:
        ``[3, h, w]``, uint8.

    Raises:
        ValueError: more than :data:`PIXEL_LIMIT` pixels, several pictures, or a pixel format that is not
            one of 8 bits a channel.
        Exception: whatever the damage in a file makes Pillow's readers trip over.
    """
    with Image.open(source) as file:
        width, height = file.size
        if width * height > PIXEL_LIMIT:
            raise ValueError(
                f"it has {width}×{height} pixels, more than the {PIXEL_LIMIT // 10**6} million that an "
                f"image may have"
            )
        # What phones call a JPEG may hold a second, smaller picture; the first is the image.
        pictures = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
        if pictures > 1:
            raise ValueError(f"it is animated: it holds {pictures} pictures")
        if file.mode not in _MODES:
            raise ValueError(f"its pixel format {file.mode} is not one of 8 bits a channel")
        image = ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@dataclass(frozen=True)
class Fault:
    """An image that could not be read.

    Attributes:
        index: which.
        why: the reason, one line.
        passes: the image need not be bad: rights, the disk, too many open files or too little memory
            were in the way, and another time it may be read.
    """

    index: int
    why: str
    passes: bool

    @classmethod
    def of(cls, index: int, cause: Exception) -> Fault:
        """From what was raised."""
        # Pillow too says with an OSError that a file is cut off or no image, but without a number.
        of_system = isinstance(cause, OSError) and cause.errno is not None
        reason = " ".join(str(cause).split()) or type(cause).__name__
        return cls(index, reason, of_system or isinstance(cause, MemoryError))


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Without Pillow's warnings about single files; in all threads, so begun in one place only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
