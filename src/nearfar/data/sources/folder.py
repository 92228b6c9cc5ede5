"""A user's own folder: a sub-folder a class, images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nearfar.data.sources.decoding import Place, Square
from nearfar.data.sources.files import holds_images, image_files, read_images, sub_folders
from nearfar.data.sources.labelled import LabelledImages
from nearfar.data.sources.listing import Listing
from nearfar.data.sources.parts import Inside, folder_shaped
from nearfar.errors import InputError

__all__ = ["folder_listing", "folder_parts", "folder_source", "read_parts"]


def folder_source(root: Path | None, place: Square, max_skipped: float = 0.01) -> LabelledImages:
    """Reads ``root/CLASS/*``, or ``root/train/CLASS/*`` with ``root/val`` or ``root/test`` beside it.

    The sub-folders' names, in order, are the classes. The official test part is ``test`` where there
    is one (then ``val`` belongs to the training part), else ``val``. Other names of parts, and what is
    refused for looking like one: :mod:`nearfar.data.sources.parts`.

    Args:
        root: the folder.
        place: the square on which every image is stored.
        max_skipped: the share of the images that may be left out because they cannot be read: damaged,
            animated, of more than 100 million pixels, or not of 8 bits a channel.

    Raises:
        InputError: no ``root``, folders that may be parts or classes, fewer than two classes, a class
            without images, a class that only the test part has, too many unreadable images, or too many
            for memory.
    """
    training, test = folder_parts(root)
    return read_parts(training, test, place, max_skipped, reduced=True)


def folder_parts(root: Path | None) -> tuple[list[Path], Path | None]:
    """Folders with a sub-folder a class: those of the training part, and the official test part.

    Raises:
        InputError: ``root`` is no folder, or it cannot be told whether its sub-folders are parts or
            classes.
    """
    if root is None or not root.is_dir():
        raise InputError(
            f"a folder source needs as its root an existing folder with a sub-folder a class, got {root}"
        )
    parts = folder_shaped({top.name: _inside(top) for top in sub_folders(root)}, root)
    if parts is None:
        return [root], None
    return [root / name for name in parts.training], root / parts.test if parts.test else None


def _inside(folder: Path) -> Inside:
    direct = holds_images(folder, below=False)
    below = frozenset(inner.name for inner in sub_folders(folder))
    return Inside(direct, below, direct or holds_images(folder))


def folder_listing(training: Sequence[Path], test: Path | None) -> Listing[Path]:
    """Image files of folders with a sub-folder a class.

    Args:
        training: whose images make up the training part; their sub-folders are the classes.
        test: the official test part.

    Raises:
        InputError: fewer than two classes, a class without images, or a class that only the test part has.
    """
    names = sorted({folder.name for part in training for folder in sub_folders(part)})
    if len(names) < 2:
        raise InputError(
            f"{training[0]} needs at least two sub-folders, one a class, got {len(names)}"
            f"{f' ({names[0]})' if names else ''}"
        )
    number = {name: i for i, name in enumerate(names)}
    paths: list[Path] = []
    labels: list[int] = []
    test_from = None
    for part in (*training, *([] if test is None else [test])):
        if part == test:
            test_from = len(paths)
            if not sub_folders(part):
                raise InputError(f"{part} is missing, or has no sub-folder a class; add it")
        for folder in sub_folders(part):
            if folder.name not in number:
                raise InputError(
                    f"{folder} is a class that {training[0]} does not have; add images of it there, or "
                    f"remove the folder"
                )
            found = image_files(folder)
            paths += found
            labels += [number[folder.name]] * len(found)
    return Listing(paths, labels, tuple(names), test_from)


def read_parts(
    training: Sequence[Path],
    test: Path | None,
    place: Place,
    max_skipped: float = 0.0,
    reduced: bool = False,
) -> LabelledImages:
    """Reads folders with a sub-folder a class into memory.

    Args:
        training, test: as in :func:`folder_listing`.
        place, reduced: as in :func:`nearfar.data.sources.files.read_images`.
        max_skipped: the share of images that may be left out because they cannot be read.

    Raises:
        InputError: as :func:`folder_source` does.
    """
    listing = folder_listing(training, test)
    mend = "take source stream_folder, which reads them batch by batch, or a smaller data.size (or canvas "
    mend += "and content), or fewer images"
    read = read_images(listing.where, place, mend, reduced)
    return listing.with_images(read.images, read.kept, read.skipped, max_skipped, read.sides)
