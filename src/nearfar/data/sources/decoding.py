"""One image file as a tensor: what is taken, what is refused, and why."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from nearfar.data.protocol import ScaleProtocol
from nearfar.errors import InputError

__all__ = [
    "PIXEL_LIMIT",
    "Exactly",
    "Fault",
    "Place",
    "Square",
    "decoded",
    "native_sides",
    "quiet_pillow",
]

#: Images of more pixels are refused: a small file can hold more of them than memory does.
PIXEL_LIMIT = 100_000_000


class Place(Protocol):
    """``[3, h, w]`` uint8 as decoded → ``[3, size, size]`` uint8 as stored.

    A ``ValueError`` says why it cannot. Its ``repr`` names all that it depends on.
    """

    @property
    def size(self) -> int:
        """Height and width of what is stored."""

    def __call__(self, image: Tensor, /) -> Tensor:
        """What is stored."""


# Pillow's modes of 8 bits a channel. Others (16 bits, floats) it would cut off without a word.
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}


def decoded(source: Path | IO[bytes], at_least: int | None = None) -> Tensor:
    """Reads an image.

    Grey images become RGB; what is transparent becomes black, as an empty canvas is. Images are turned
    as their EXIF data ask.

    Args:
        source: a path, or an open file.
        at_least: JPEGs much larger than this may be decoded at ½, ¼ or ⅛ of their size, but not below
            this many pixels a side: what a camera takes is then read several times faster.

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
        if at_least is not None:
            file.draft(None, (at_least, at_least))
        image = ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def native_sides(source: Path | IO[bytes]) -> tuple[int, int]:
    """The shorter and the longer side of an image in its file; only the file's head is read."""
    with Image.open(source) as file:
        return min(file.size), max(file.size)


@dataclass(frozen=True)
class Exactly:
    """A :data:`Place` that only lets square images of one size through.

    Args:
        size: in pixels.
    """

    size: int

    def __call__(self, image: Tensor) -> Tensor:
        """The image itself."""
        height, width = image.shape[-2:]
        if (height, width) != (self.size, self.size):
            raise ValueError(f"it is {height}×{width} where {self.size}×{self.size} is expected")
        return image


@dataclass(frozen=True)
class Square:
    """A :data:`Place` that lays an image of any size on a black square, about its centre.

    That is how :class:`ScaleProtocol` shows an image, so an image shown later at ``size`` pixels or
    fewer looks as if it had been laid on the canvas directly, but for rounding to 256 grey levels and
    being resampled twice.

    Args:
        size: of the square, in pixels.
        side: which side of the image fills it: the ``longer``, or the ``shorter``, and what juts out is
            cut off.
    """

    size: int
    side: Literal["longer", "shorter"] = "longer"

    @classmethod
    def of(cls, size: int | None, side: Literal["longer", "shorter"]) -> Square:
        """One of a size that was perhaps not given.

        Raises:
            InputError: it was not.
        """
        if size is None or size < 1:
            raise InputError(f"a folder's images need a size of at least 1 pixel, got {size}")
        return cls(size, side)

    def __call__(self, image: Tensor) -> Tensor:
        """``[3, h, w]`` → ``[3, size, size]``, uint8."""
        square = ScaleProtocol(canvas=self.size, content=self.size, side=self.side)
        return square.render(image.unsqueeze(0), 1.0)[0].mul(255).round().to(torch.uint8)


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
        said = " ".join(str(cause).split()) or type(cause).__name__
        return cls(index, said, of_system or isinstance(cause, MemoryError))


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Without Pillow's warnings about single files; in all threads, so begun in one place only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
