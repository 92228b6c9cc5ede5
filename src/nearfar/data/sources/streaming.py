"""Images that are read when they are asked for, for more than memory holds."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from nearfar.data.skipped import Skipped
from nearfar.data.sources.cache import cached_tensors
from nearfar.data.sources.decoding import Fault, Place, decoded, quiet_pillow
from nearfar.data.sources.labelled import LabelledImages
from nearfar.data.sources.listing import Listing
from nearfar.errors import InputError

__all__ = ["Entry", "ImageFile", "StreamedImages", "streamed"]

_AT_ONCE = 32
_VERSION = 2


class Entry(Protocol):
    """Where one image is; small, and able to travel to worker processes. Its ``str`` names it."""

    def open(self) -> Path | IO[bytes]:
        """The image's file."""


@dataclass(frozen=True)
class ImageFile:
    """A file of its own."""

    path: Path

    def open(self) -> Path:
        """The file itself."""
        return self.path

    def __str__(self) -> str:
        return str(self.path)


class StreamedImages:
    """Images by where they are; indexing reads them, several at a time.

    Args:
        where: an entry an image.
        place: what makes of a decoded image what a batch holds. JPEGs may be decoded at a fraction of
            their size, not below twice ``place.size``.
    """

    def __init__(self, where: Sequence[Entry], place: Place) -> None:
        self.where = where
        self.place = place

    @property
    def shape(self) -> torch.Size:
        """``[N, 3, size, size]``."""
        return torch.Size((len(self.where), 3, self.place.size, self.place.size))

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, which: Tensor, /) -> Tensor:
        wanted = which.tolist()
        images = torch.zeros((len(wanted), *self.shape[1:]), dtype=torch.uint8)
        faults = self._read(wanted, images)
        if faults:
            fault = faults[0]
            raise InputError(
                f"{self.where[wanted[fault.index]]} can no longer be read ({fault.why}); it could when "
                f"training began: leave the files alone while they are in use, and start again"
            )
        return images

    def unreadable(self, identity: str) -> list[tuple[int, str]]:
        """Every image read once: which cannot be, and why. What was found is kept in the cache.

        Of an image that could not be read for a reason that may pass, only that is kept: it is read again
        at once, and each time that the cache is asked.

        Args:
            identity: of the files' content, for the cache.
        """

        def make() -> dict[str, Tensor]:
            found = self._read(range(len(self)), None)
            lasting = [(fault.index, fault.why) for fault in found if not fault.passes]
            told = json.dumps([lasting, [fault.index for fault in found if fault.passes]]).encode()
            return {"faults": torch.frombuffer(bytearray(told), dtype=torch.uint8)}

        found = cached_tensors(f"unreadable-{_VERSION}-{identity}", make)
        lasting: list[tuple[int, str]]
        lasting, again = json.loads(bytes(found["faults"].numpy()))
        still = [(again[fault.index], fault.why) for fault in self._read(again, None)]
        return sorted((i, reason) for i, reason in (*lasting, *still))

    def _read(self, wanted: Sequence[int], into: Tensor | None) -> list[Fault]:
        def read(first: int) -> list[Fault]:
            faults = []
            for i in range(first, min(first + portion, len(wanted))):
                try:
                    image = self.place(decoded(self.where[wanted[i]].open(), 2 * self.place.size))
                    if into is not None:
                        into[i] = image
                # Pillow's readers raise whatever the damage made them trip over.
                except Exception as cause:
                    faults.append(Fault.of(i, cause))
            return faults

        # Worker processes share the cores already.
        threads = 1 if get_worker_info() else min(8, os.cpu_count() or 1)
        portion = max(1, min(_AT_ONCE, -(-len(wanted) // threads)))
        begins = range(0, len(wanted), portion)
        with quiet_pillow():
            if threads == 1 or len(begins) <= 1:
                return [fault for first in begins for fault in read(first)]
            pool = ThreadPoolExecutor(threads)
            try:
                return [fault for part in pool.map(read, begins) for fault in part]
            finally:  # an interruption does not wait for the rest
                pool.shutdown(cancel_futures=True)


def streamed(
    listing: Listing[Entry], place: Place, identity: str, max_skipped: float
) -> LabelledImages:
    """A listing as a data set whose images are read batch by batch.

    Before that every image is read once, so that training does not end at one that cannot be.

    Args:
        listing: which images there are.
        place: the square on which a batch holds each.
        identity: of the files' content.
        max_skipped: the share of the images that may be left out.

    Raises:
        InputError: too many cannot be read.
    """
    faults = StreamedImages(listing.where, place).unreadable(identity)
    kept = torch.ones(len(listing.where), dtype=torch.bool)
    kept[[i for i, _ in faults]] = False
    skipped: Skipped = tuple((str(listing.where[i]), reason) for i, reason in faults)
    left = kept.nonzero().flatten()
    images = StreamedImages([listing.where[i] for i in left.tolist()], place)
    return listing.with_images(images, left, skipped, max_skipped)
