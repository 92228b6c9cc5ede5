"""Data sets of Hugging Face's ``datasets`` package, through timm's reader."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nearfar.data.image_index import ImageIndex
from nearfar.data.sources.parts import Parts, named_parts, part_named
from nearfar.data.sources.registry import register_index
from nearfar.errors import InputError

__all__ = ["HubImage", "hub_index", "hub_parts"]


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


@register_index("hfds/", lambda root, name: hub_parts(name).test is not None)
def hub_index(root: Path | None, name: str) -> tuple[ImageIndex, str]:
    """A data set with the columns ``image`` and ``label``, and a split ``train``.

    Its splits are parts as folders are: the official test part is ``test`` where there is one (then
    ``validation`` belongs to the training part), else ``validation``; splits of other names, such as
    ``extra``, are left out. ``name`` may be a folder of this
    machine, of any layout that ``datasets.load_dataset`` reads. Others are fetched, once.

    Args:
        root: where the package keeps what it fetches; default: where it does by itself.
        name: after ``hfds/``.

    Returns:
        The index, and what identifies its content.

    Raises:
        InputError: the package is not installed, no such data set, or other columns.
    """
    try:
        import datasets  # noqa: F401
        from timm.data.readers.reader_factory import create_reader
    except ImportError as cause:
        raise _not_installed(name) from cause
    entries: list[HubImage] = []
    labels: list[int] = []
    digest = hashlib.sha256()
    names: tuple[str, ...] = ()
    test_from = None
    parts = hub_parts(name)
    try:
        for split in (*parts.training, *([parts.test] if parts.test else [])):
            reader = create_reader(f"hfds/{name}", str(root) if root else None, split)
            if split == parts.test:
                test_from = len(entries)
            feature = reader.dataset.features["label"]
            names = names or tuple(getattr(feature, "names", ()))
            labels += [int(label) for label in reader.dataset["label"]]
            entries += [HubImage(reader, f"hfds/{name}/{split}", i) for i in range(len(reader))]
            digest.update(f"{name} {split} {reader.dataset._fingerprint}\n".encode())
    except (OSError, ValueError, KeyError, AttributeError) as cause:
        raise _unusable(name, cause) from cause
    if not names:
        names = tuple(str(i) for i in range(max(labels, default=0) + 1))
    if len(names) < 2 or min(labels, default=0) < 0:
        raise InputError(f"hfds/{name} needs at least two classes and a label for every image")
    return ImageIndex(entries, labels, names, test_from), digest.hexdigest()[:32]


def hub_parts(name: str) -> Parts:
    """The splits that are parts.

    Raises:
        InputError: the package is not installed, no such data set, no split ``train``, or two of one part.
    """
    try:
        from datasets import get_dataset_split_names
    except ImportError as cause:
        raise _not_installed(name) from cause
    try:
        splits = get_dataset_split_names(name)
        if not any(part_named(split) == "train" for split in splits):
            raise ValueError(f"it has the splits {', '.join(splits)}")
    except (OSError, ValueError, KeyError, AttributeError) as cause:
        raise _unusable(name, cause) from cause
    return named_parts([split for split in splits if part_named(split)], f"hfds/{name}")


def _not_installed(name: str) -> InputError:
    return InputError(f"hfds/{name} needs the package datasets: pip install 'nearfar[streams]'")


def _unusable(name: str, cause: Exception) -> InputError:
    return InputError(
        f"hfds/{name} cannot be used: {' '.join(str(cause).split())}; it must be a data set that "
        f"datasets.load_dataset finds, with columns image and label and a split train"
    )
