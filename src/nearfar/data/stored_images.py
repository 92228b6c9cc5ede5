"""Decoded images at their native size: held in memory where they fit, read when they are asked for elsewhere.

Nothing is resized here: what a network sees is rendered from these pixels by
:meth:`nearfar.data.Preprocess.render`, once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from nearfar.data.cache import cached_tensors
from nearfar.data.decoding import Fault, decode, quiet_pillow
from nearfar.data.image_dataset import ImageStore
from nearfar.errors import InputError

__all__ = [
    "MEMORY_LIMIT",
    "DecodedImages",
    "ImageEntry",
    "PathEntry",
    "StreamedImages",
    "hold_images",
    "stream_images",
]

#: Datasets whose decoded images take more bytes than this are streamed.
MEMORY_LIMIT = 4 * 2**30
#: Decoded images are cached on disk where they take at least and at most so many bytes.
CACHED_FROM, CACHED_UP_TO = 8 * 2**20, 2**30
#: Images of one size are held as one tensor up to so many bytes; more would be copied for that.
_STACKED_UP_TO = 2**30

_PORTION = 32
# Written into the cache's names: a change of how files are decoded must not meet old ones.
_VERSION = 4


class ImageEntry(Protocol):
    """Where one encoded image is; small, and able to travel to worker processes. Its ``str`` names it."""

    def open(self) -> Path | IO[bytes]:
        """The image's file."""


@dataclass(frozen=True)
class PathEntry:
    """A file of its own."""

    path: Path

    def open(self) -> Path:
        """The file itself."""
        return self.path

    def __str__(self) -> str:
        return str(self.path)


class DecodedImages:
    """Images of any sizes in memory.

    Args:
        images: ``[C, h, w]`` each, uint8.
        channels: C.
    """

    def __init__(self, images: Sequence[Tensor], channels: int = 3) -> None:
        self.channels = channels
        self._images = list(images)
        self.sizes = torch.tensor([image.shape[-2:] for image in images]).view(-1, 2)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, indices: Tensor, /) -> list[Tensor]:
        return [self._images[i] for i in indices.tolist()]


class StreamedImages:
    """Images by where they are; indexing decodes them, several at a time.

    Args:
        entries: one an image.
        sizes: ``[N, 2]``, height and width of each.
    """

    channels = 3

    def __init__(self, entries: Sequence[ImageEntry], sizes: Tensor) -> None:
        self.entries = entries
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, indices: Tensor, /) -> list[Tensor]:
        entries = [self.entries[i] for i in indices.tolist()]
        images: dict[int, Tensor] = {}
        faults = _decode_all(entries, images.__setitem__)
        if faults:
            fault = faults[0]
            raise InputError(
                f"{entries[fault.index]} can no longer be read ({fault.why}); it could when the dataset was "
                f"opened: leave the files alone while they are in use, and start again"
            )
        return [images[i] for i in range(len(entries))]


def hold_images(
    entries: Sequence[ImageEntry], identity: str, encoded_bytes: int = 0, size: int | None = None
) -> tuple[Tensor | ImageStore, Tensor, list[Fault]]:
    """Decodes images once and holds them in memory; more than :data:`MEMORY_LIMIT` of them are streamed.

    Several are decoded at a time, since decoding leaves Python's lock free. They are cached on disk by the
    identity of the files, never by how they are used. Where a file could not be read for a reason that may
    pass, nothing is cached.

    Args:
        entries: one an image.
        identity: of the files' content, for the cache.
        encoded_bytes: of all files together; few are not worth the cache.
        size: height and width that every image has to have; others are faults.

    Returns:
        The images that can be read, the indices of their entries, ascending, and the faults of the others.
    """

    def make() -> dict[str, Tensor]:
        images: dict[int, Tensor] = {}
        faults = _decode_all(entries, images.__setitem__, size, limit=MEMORY_LIMIT)
        passing.extend(fault for fault in faults if fault.passes)
        pixels = [images[i] for i in sorted(images)]
        decoded.extend(pixels)
        sizes = torch.tensor([p.shape[-2:] for p in pixels], dtype=torch.int64).view(-1, 2)
        return {"sizes": sizes, "faults": _as_bytes(faults)}

    def pack() -> dict[str, Tensor]:
        tensors = make()
        if sum(image.numel() for image in decoded) <= CACHED_UP_TO:
            flat = [image.flatten() for image in decoded]
            tensors["pixels"] = torch.cat(flat) if flat else torch.zeros(0, dtype=torch.uint8)
        return tensors

    passing: list[Fault] = []
    decoded: list[Tensor] = []
    try:
        if encoded_bytes >= CACHED_FROM:
            name = f"decoded-{_VERSION}-{size or 'any'}-{identity}"
            tensors = cached_tensors(
                name, pack, lambda tensors: not passing and "pixels" in tensors
            )
        else:
            tensors = make()
    except _MemoryLimitError:
        return stream_images(entries, identity)
    faults = _from_bytes(tensors["faults"])
    from_cache = "pixels" in tensors and not decoded
    images = _unpacked(tensors["pixels"], tensors["sizes"]) if from_cache else decoded
    readable = torch.ones(len(entries), dtype=torch.bool)
    readable[[fault.index for fault in faults]] = False
    return _stacked(images), readable.nonzero().flatten(), faults


def stream_images(
    entries: Sequence[ImageEntry], identity: str
) -> tuple[StreamedImages, Tensor, list[Fault]]:
    """Images that are decoded batch by batch, whenever they are asked for.

    Each is decoded once beforehand, so that training does not end at one that cannot be; what came out
    is cached. An image that could not be read for a reason that may pass is tried again each time.

    Args:
        entries: one an image.
        identity: of the files' content, for the cache.

    Returns:
        As :func:`hold_images` does.
    """

    def make() -> dict[str, Tensor]:
        sizes = torch.zeros(len(entries), 2, dtype=torch.int64)

        def note(i: int, image: Tensor) -> None:
            sizes[i] = torch.tensor(image.shape[-2:])

        return {"faults": _as_bytes(_decode_all(entries, note)), "sizes": sizes}

    tensors = cached_tensors(f"readable-{_VERSION}-{identity}", make)
    sizes = tensors["sizes"]
    faults = [fault for fault in _from_bytes(tensors["faults"]) if not fault.passes]
    again = [fault.index for fault in _from_bytes(tensors["faults"]) if fault.passes]

    def note_again(i: int, image: Tensor) -> None:
        sizes[again[i]] = torch.tensor(image.shape[-2:])

    still = _decode_all([entries[i] for i in again], note_again)
    faults += [Fault(again[fault.index], fault.why, fault.passes) for fault in still]
    faults.sort(key=lambda fault: fault.index)
    readable = torch.ones(len(entries), dtype=torch.bool)
    readable[[fault.index for fault in faults]] = False
    indices = readable.nonzero().flatten()
    images = StreamedImages([entries[i] for i in indices.tolist()], sizes[indices])
    return images, indices, faults


class _MemoryLimitError(Exception):
    pass


def _decode_all(
    entries: Sequence[ImageEntry],
    take: Callable[[int, Tensor], None],
    size: int | None = None,
    limit: int | None = None,
) -> list[Fault]:
    """Decodes every entry and hands it to ``take``; what cannot be decoded is returned.

    Raises:
        _MemoryLimitError: more than ``limit`` bytes were decoded.
    """
    total = [0]

    def read(first: int) -> list[Fault]:
        faults = []
        for i in range(first, min(first + portion, len(entries))):
            try:
                image = decode(entries[i].open())
                if size is not None and tuple(image.shape[-2:]) != (size, size):
                    height, width = image.shape[-2:]
                    raise ValueError(f"it is {height}×{width} where {size}×{size} is expected")
            # Pillow's readers raise whatever the damage made them trip over.
            except Exception as cause:
                faults.append(Fault.of(i, cause))
                continue
            total[0] += image.numel()
            if limit is not None and total[0] > limit:
                raise _MemoryLimitError
            take(i, image)
        return faults

    # Worker processes share the cores already.
    threads = 1 if get_worker_info() else min(8, os.cpu_count() or 1)
    portion = max(1, min(_PORTION, -(-len(entries) // threads)))
    starts = range(0, len(entries), portion)
    with quiet_pillow():
        if threads == 1 or len(starts) <= 1:
            return [fault for first in starts for fault in read(first)]
        pool = ThreadPoolExecutor(threads)
        try:
            return [fault for faults in pool.map(read, starts) for fault in faults]
        finally:  # an interruption does not wait for the rest
            pool.shutdown(cancel_futures=True)


def _stacked(images: list[Tensor]) -> Tensor | DecodedImages:
    """One tensor where all images have one size."""
    small = sum(image.numel() for image in images) <= _STACKED_UP_TO
    if small and images and len({image.shape for image in images}) == 1:
        return torch.stack(images)
    return DecodedImages(images)


def _unpacked(pixels: Tensor, sizes: Tensor) -> list[Tensor]:
    numbers = (3 * sizes.prod(1)).tolist()
    parts = torch.split(pixels, numbers)
    return [part.view(3, *size) for part, size in zip(parts, sizes.tolist(), strict=True)]


def _as_bytes(faults: Sequence[Fault]) -> Tensor:
    text = json.dumps([(fault.index, fault.why, fault.passes) for fault in faults])
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def _from_bytes(text: Tensor) -> list[Fault]:
    return [Fault(*fields) for fields in json.loads(bytes(text.numpy()))]
