"""Image files into one tensor: bounded memory, and every file that cannot be read named."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nearfar.data.skipped import Skipped
from nearfar.data.sources.cache import cached_tensors
from nearfar.data.sources.decoding import Fault, Place, decoded, native_sides, quiet_pillow
from nearfar.errors import InputError

__all__ = [
    "ENDINGS",
    "MEMORY_BOUND",
    "FilesRead",
    "file_identity",
    "holds_images",
    "image_files",
    "is_hidden",
    "read_images",
    "sub_folders",
]

#: A source larger than this, in bytes of memory, is refused: it has to be streamed.
MEMORY_BOUND = 4 * 2**30
#: Files of so many bytes together are decoded once and kept in the cache, where they fit into the second.
WORTH_KEEPING, KEPT_AT_MOST = 8 * 2**20, 2**30

#: How image files' names end.
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_AT_ONCE = 128
# Written into the cache's names: a change of how files are decoded must not meet old ones.
_VERSION = 3


@dataclass(frozen=True)
class FilesRead:
    """Files as tensors.

    Attributes:
        images: ``[N, 3, side, side]``, uint8; what could not be read is left out.
        kept: ``[N]``, which of the paths they are, ascending.
        skipped: the others: (path, why).
        sides: ``[N, 2]``, the shorter and the longer side of each as it is in its file, in pixels.
    """

    images: Tensor
    kept: Tensor
    skipped: Skipped
    sides: Tensor


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
    return next(_found(folder, below), None) is not None


def _found(folder: Path, below: bool = True) -> Iterator[Path]:
    for place, inner, names in os.walk(folder):
        # In place: what is not in the list any more is not walked through.
        inner[:] = [name for name in inner if below and not is_hidden(name)]
        for name in names:
            if Path(name).suffix.lower() in ENDINGS and not name.startswith("."):
                yield Path(place) / name


def image_files(folder: Path) -> list[Path]:
    """Image files in a folder and below it, in order of their paths.

    Other files are passed over, and so are hidden folders.

    Raises:
        InputError: no such folder, or no image in it.
    """
    found = list(_found(folder))
    if not found:
        raise InputError(
            f"there is no image in {folder} (looked for {' '.join(sorted(ENDINGS))}); add some, or "
            f"remove the folder"
        )
    return sorted(found, key=lambda path: path.as_posix())


def read_images(
    paths: Sequence[Path],
    place: Place,
    mend: str = "take a source that streams them",
    reduced: bool = False,
) -> FilesRead:
    """Reads files into one tensor; several at a time, since decoding leaves Python's lock free.

    Many files are decoded once and kept in the cache (:func:`cache_folder`), by a checksum over all
    paths, sizes and times of change, and over what decides how they are decoded. Where a file could not
    be read for a reason that may pass, nothing is kept.

    Args:
        paths: what to read.
        place: what makes of a decoded image what is stored.
        mend: what to do about a data set too large, for the error text.
        reduced: large JPEGs may be decoded at a fraction of their size, not below twice ``place.size``.

    Raises:
        InputError: more than :data:`MEMORY_BOUND` would be needed.
    """
    side = place.size
    needed = len(paths) * 3 * side * side
    if needed > MEMORY_BOUND:
        raise InputError(
            f"{len(paths)} images of 3×{side}×{side} need {needed / 2**30:.1f} GiB of memory, more than "
            f"the {MEMORY_BOUND / 2**30:g} GiB that a data set may take; {mend}"
        )

    passing: list[Fault] = []

    def make() -> dict[str, Tensor]:
        images, sides, faults = _read(paths, place, reduced)
        passing.extend(fault for fault in faults if fault.passes)
        told = json.dumps([(fault.index, fault.why) for fault in faults]).encode()
        told_bytes = torch.frombuffer(bytearray(told), dtype=torch.uint8)
        return {"images": images, "sides": sides, "faults": told_bytes}

    lasting = needed <= KEPT_AT_MOST and sum(map(_bytes, paths)) >= WORTH_KEEPING
    key = file_identity(paths, f"{_VERSION} {place} {reduced}") if lasting else ""
    found = cached_tensors(f"decoded-{key}", make, lambda: not passing) if lasting else make()
    faults: list[tuple[int, str]] = json.loads(bytes(found["faults"].numpy()))
    kept = torch.ones(len(paths), dtype=torch.bool)
    kept[[i for i, _ in faults]] = False
    images, sides = (found[key] if not faults else found[key][kept] for key in ("images", "sides"))
    skipped = tuple((str(paths[i]), why) for i, why in faults)
    return FilesRead(images, kept.nonzero().flatten(), skipped, sides)


def _read(paths: Sequence[Path], place: Place, reduced: bool) -> tuple[Tensor, Tensor, list[Fault]]:
    images = torch.zeros(len(paths), 3, place.size, place.size, dtype=torch.uint8)
    sides = torch.zeros(len(paths), 2, dtype=torch.int32)

    def read(first: int) -> list[Fault]:
        faults = []
        for i in range(first, min(first + _AT_ONCE, len(paths))):
            try:
                images[i] = place(decoded(paths[i], 2 * place.size if reduced else None))
                sides[i] = torch.tensor(native_sides(paths[i]), dtype=torch.int32)
            # Pillow's readers raise whatever the damage made them trip over.
            except Exception as cause:
                faults.append(Fault.of(i, cause))
        return faults

    with quiet_pillow():
        pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        try:
            faults = [f for part in pool.map(read, range(0, len(paths), _AT_ONCE)) for f in part]
        finally:  # an interruption does not wait for the rest
            pool.shutdown(cancel_futures=True)
    return images, sides, faults


def file_identity(paths: Sequence[Path], how: str) -> str:
    """A checksum of which files there are (paths, sizes, times of change) and of how they are read."""
    digest = hashlib.sha256(f"{how}\n".encode())
    for path in paths:
        try:
            state = path.stat()
        except OSError:  # gone, or a link to nowhere: said when it is read
            digest.update(f"{path.absolute()}\n".encode())
            continue
        digest.update(f"{path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
