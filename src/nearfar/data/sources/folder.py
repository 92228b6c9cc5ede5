"""A user's own folder: a sub-folder a class, images of any size; or images that nobody has labelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nearfar.data.image_files import file_identity, holds_images, image_files, sub_folders
from nearfar.data.image_index import ImageIndex
from nearfar.data.sources.parts import FolderContent, folder_shaped
from nearfar.data.sources.registry import register_index
from nearfar.data.stored_images import PathEntry
from nearfar.errors import InputError

__all__ = ["folder_index", "folder_parts"]


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


def _inside(folder: Path) -> FolderContent:
    direct = holds_images(folder, below=False)
    below = frozenset(inner.name for inner in sub_folders(folder))
    return FolderContent(direct, below, direct or holds_images(folder))


def folder_index(training: Sequence[Path], test: Path | None) -> tuple[ImageIndex, str]:
    """Image files of folders with a sub-folder a class.

    Args:
        training: whose images make up the training part; their sub-folders are the classes.
        test: the official test part.

    Returns:
        The index, and what identifies the content of the files.

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
            class_paths = image_files(folder)
            paths += class_paths
            labels += [number[folder.name]] * len(class_paths)
    return _indexed(paths, labels, tuple(names), test_from)


def _indexed(
    paths: Sequence[Path], labels: Sequence[int], names: tuple[str, ...], test_from: int | None
) -> tuple[ImageIndex, str]:
    entries = [PathEntry(path) for path in paths]
    # A link to nowhere is reported when it is read.
    encoded_bytes = sum(path.stat().st_size for path in paths if path.exists())
    index = ImageIndex(entries, labels, names, test_from, encoded_bytes)
    return index, file_identity(paths, "files")


def _has_test_part(root: Path | None) -> bool:
    return folder_parts(root)[1] is not None


@register_index("stream_folder", _has_test_part)
@register_index("folder", _has_test_part, in_memory=True)
def _folder(root: Path | None) -> tuple[ImageIndex, str]:
    """``root/CLASS/*``, or ``root/train/CLASS/*`` with ``root/val`` or ``root/test`` beside it.

    The sub-folders' names, in order, are the classes. The official test part is ``test`` where there
    is one (then ``val`` belongs to the training part), else ``val``. Other names of parts, and what is
    refused for looking like one: :mod:`nearfar.data.sources.parts`.

    Raises:
        InputError: no ``root``, folders that may be parts or classes, fewer than two classes, a class
            without images, or a class that only the test part has.
    """
    return folder_index(*folder_parts(root))


@register_index("unlabelled", lambda root: False, in_memory=True)
def _unlabelled(root: Path | None) -> tuple[ImageIndex, str]:
    """All images in a folder and below it; all of them are of the one class "unlabelled".

    For what needs images and no labels: batch-norm statistics, and training by a teacher.

    Raises:
        InputError: no ``root``, or no image in it.
    """
    if root is None or not root.is_dir():
        raise InputError(f"unlabelled images need as their root an existing folder, got {root}")
    paths = image_files(root)
    return _indexed(paths, [0] * len(paths), ("unlabelled",), None)
