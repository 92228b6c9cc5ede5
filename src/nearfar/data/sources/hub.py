"""Data sets of Hugging Face's ``datasets`` package, through timm's reader."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nearfar.data.sources.listing import Listing
from nearfar.errors import InputError

__all__ = ["HubImage", "hub_listing"]

_HELD_OUT = ("test", "validation", "val", "valid")


@dataclass(frozen=True)
class HubImage:
    """A row of a data set."""

    reader: Any
    name: str
    row: int

    def open(self) -> IO[bytes]:
        """The image's file, undecoded."""
        with self.reader[self.row][0] as file:
            return io.BytesIO(file.read())

    def __str__(self) -> str:
        return f"{self.name}[{self.row}]"


def hub_listing(name: str, root: Path | None) -> tuple[Listing[HubImage], str]:
    """A data set with the columns ``image`` and ``label``, and a split ``train``.

    The official test part is its split ``test``, else ``validation``. ``name`` may be a folder of this
    machine, of any layout that ``datasets.load_dataset`` reads. Others are fetched, once.

    Args:
        name: after ``hfds/``.
        root: where the package keeps what it fetches; default: where it does by itself.

    Returns:
        The listing, and what identifies its content.

    Raises:
        InputError: the package is not installed, no such data set, or other columns.
    """
    try:
        from datasets import get_dataset_split_names
        from timm.data.readers.reader_factory import create_reader
    except ImportError as cause:
        raise InputError(
            f"hfds/{name} needs the package datasets: pip install 'nearfar[streams]'"
        ) from cause
    where: list[HubImage] = []
    labels: list[int] = []
    digest = hashlib.sha256()
    names: tuple[str, ...] = ()
    test_from = None
    try:
        splits = get_dataset_split_names(name)
        test = next((split for split in _HELD_OUT if split in splits), None)
        for split in ("train", *([test] if test else [])):
            reader = create_reader(f"hfds/{name}", str(root) if root else None, split)
            if split == test:
                test_from = len(where)
            found = reader.dataset.features["label"]
            names = names or tuple(getattr(found, "names", ()))
            labels += [int(label) for label in reader.dataset["label"]]
            where += [HubImage(reader, f"hfds/{name}/{split}", i) for i in range(len(reader))]
            digest.update(f"{name} {split} {reader.dataset._fingerprint}\n".encode())
    except (OSError, ValueError, KeyError, AttributeError) as cause:
        raise InputError(
            f"hfds/{name} cannot be used: {' '.join(str(cause).split())}; it must be a data set that "
            f"datasets.load_dataset finds, with columns image and label and a split train"
        ) from cause
    if not names:
        names = tuple(str(i) for i in range(max(labels, default=0) + 1))
    if len(names) < 2 or min(labels, default=0) < 0:
        raise InputError(f"hfds/{name} needs at least two classes and a label for every image")
    return Listing(where, labels, names, test_from), digest.hexdigest()[:32]
