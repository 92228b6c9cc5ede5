"""Image files below a folder: which there are, what is passed over, and what identifies them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from nearfar.errors import InputError

__all__ = [
    "IMAGE_SUFFIXES",
    "file_identity",
    "holds_images",
    "image_files",
    "is_hidden",
    "sub_folders",
]

#: How image files' names end.
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def sub_folders(folder: Path) -> list[Path]:
    """Visible sub-folders in order of their names; none where there is no such folder."""
    if not folder.is_dir():
        return []
    visible = (p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))
    return sorted(visible, key=lambda path: path.name)


def is_hidden(folder: str) -> bool:
    """Whether a folder of this name is passed over: what editors and archivers leave behind."""
    return folder.startswith((".", "__"))  # ".ipynb_checkpoints", "__MACOSX"


def holds_images(folder: Path, below: bool = True) -> bool:
    """Whether there is an image file in a folder or, if asked for, below it."""
    return next(_walk(folder, below), None) is not None


def _walk(folder: Path, below: bool = True) -> Iterator[Path]:
    for parent, inner, names in os.walk(folder):
        # In place: what is not in the list any more is not walked through.
        inner[:] = [name for name in inner if below and not is_hidden(name)]
        for name in names:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield Path(parent) / name


def image_files(folder: Path) -> list[Path]:
    """Image files in a folder and below it, in order of their paths.

    Other files are passed over, and so are hidden folders.

    Raises:
        InputError: no such folder, or no image in it.
    """
    paths = sorted(_walk(folder), key=lambda path: path.as_posix())
    if not paths:
        raise InputError(
            f"there is no image in {folder} (looked for {' '.join(sorted(IMAGE_SUFFIXES))}); add some, or "
            f"remove the folder"
        )
    return paths


def file_identity(paths: Sequence[Path], how: str) -> str:
    """A checksum of which files there are (paths, sizes, times of change) and of how they are read."""
    digest = hashlib.sha256(f"{how}\n".encode())
    for path in paths:
        try:
            state = path.stat()
        except OSError:  # gone, or a link to nowhere: reported when it is read
            digest.update(f"{path.absolute()}\n".encode())
            continue
        digest.update(f"{path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
