"""Words that name images, and the images themselves: files, folders, standard input."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image
from torch import Tensor

from nearfar.data.decoding import decode, quiet_pillow
from nearfar.data.image_files import image_files
from nearfar.errors import InputError
from nearfar.pretrained import list_samples, sample_folder

__all__ = ["STDIN", "ImageFile", "named_images"]

#: The word for standard input.
STDIN = "-"


@dataclass(frozen=True)
class ImageFile:
    """An image that was named, read or not.

    Attributes:
        name: the path as it was given or found, or ``-``.
        content: the encoded image where it is no file.
    """

    name: str
    content: bytes | None = None

    def decode(self) -> Tensor:
        """``[3, h, w]``, uint8; raises what :func:`nearfar.data.decoding.decode` does."""
        return decode(Path(self.name) if self.content is None else io.BytesIO(self.content))


def named_images(words: Sequence[str | Path], stdin: IO[bytes] | None = None) -> list[ImageFile]:
    """The images that words name, in their order.

    A folder stands for all image files below it, in order of their paths, hidden ones left out; the name of
    sample images (``sample_digits``: :func:`nearfar.pretrained.list_samples`) for those. ``-``
    stands for standard input: one encoded image, or paths of files and folders, one a line. Whether a
    file is there shows when it is read.

    Args:
        words: at least one.
        stdin: what ``-`` reads; default: the process's own.

    Raises:
        InputError: no word, a folder without images, or standard input that is neither.
    """
    if not words:
        raise InputError(
            "predict needs at least one image: a file, a folder, or - for standard input"
        )
    images: list[ImageFile] = []
    for word in words:
        if str(word) == STDIN:
            images += _from_stream(sys.stdin.buffer if stdin is None else stdin)
        else:
            images += _from_paths([word])
    return images


def _from_paths(words: Iterable[str | Path]) -> list[ImageFile]:
    images = []
    for word in words:
        folder = sample_folder(str(word)) if str(word) in list_samples() else Path(word)
        inside = image_files(folder) if folder.is_dir() else [word]
        images += [ImageFile(str(path)) for path in inside]
    return images


def _from_stream(stream: IO[bytes]) -> list[ImageFile]:
    content = stream.read()
    if _is_image(content):
        return [ImageFile(STDIN, content)]
    lines = [line.rstrip(b"\r") for line in content.split(b"\n")]
    paths = [os.fsdecode(line) for line in lines if line]
    if not paths or b"\0" in content:
        got = "bytes that are neither" if paths else "nothing"
        raise InputError(
            f"standard input must hold one encoded image, or paths, one a line; got {got}"
        )
    return _from_paths(paths)


def _is_image(content: bytes) -> bool:
    """Whether Pillow knows the beginning as an image's, be the rest sound or not."""
    try:
        with quiet_pillow(), Image.open(io.BytesIO(content)):
            return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # Pillow's readers try, and raise what they trip over
        return False
