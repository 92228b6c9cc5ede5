"""Datasets by name: a source is registered once, and every command knows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nearfar.data.image_dataset import LabelledImages
from nearfar.data.image_index import ImageIndex
from nearfar.errors import InputError

__all__ = [
    "Source",
    "has_test_part",
    "is_own",
    "list_sources",
    "load_source",
    "register_index",
    "register_source",
]

_MAX_SKIPPED = 0.01

IndexReader = Callable[[Path | None], tuple[ImageIndex, str]]
"""From a root to the images below it, and what identifies the content of their files."""


@dataclass(frozen=True)
class Source:
    """What is known of a dataset under one name.

    Attributes:
        load: ``(root, fold, max_skipped)`` → the dataset.
        own: its images are anybody's: of any size, some perhaps damaged.
        folds: there are several draws of it, told apart by number.
        has_test_part: whether there is an official test part below a root; asked of own images only.
    """

    load: Callable[[Path | None, int, float], LabelledImages]
    own: bool = False
    folds: bool = False
    has_test_part: Callable[[Path | None], bool] = lambda root: False


_SOURCES: dict[str, Source] = {}


def register_source(
    name: str, *, folds: bool = False
) -> Callable[[Callable[..., LabelledImages]], Callable[..., LabelledImages]]:
    """Registers a published dataset: a function from its root to the dataset.

    The images are all needed and have their published size::

        @nearfar.data.register_source("stripes")
        def stripes(root: Path | None) -> LabelledImages:
            return LabelledImages(images, labels, class_names)

    Args:
        name: under which every command knows it; a name that ends in ``/`` stands for all that begin so, and
            the function gets the rest as its last argument.
        folds: the function takes ``(root, fold)``.

    Raises:
        InputError: the name is taken.
    """

    def register(read: Callable[..., LabelledImages]) -> Callable[..., LabelledImages]:
        def load(root: Path | None, fold: int, max_skipped: float, *rest: str) -> LabelledImages:
            return read(root, fold, *rest) if folds else read(root, *rest)

        _add(name, Source(load, folds=folds))
        return read

    return register


def register_index(
    name: str, has_test_part: Callable[..., bool], *, in_memory: bool = False
) -> Callable[[Callable[..., tuple[ImageIndex, str]]], Callable[..., tuple[ImageIndex, str]]]:
    """Registers anybody's images: a function from a root to their index and what identifies their content.

    Files that cannot be read are left out up to ``max_skipped``, and listed.

    Args:
        name: as in :func:`register_source`.
        has_test_part: from a root (and the rest of the name) to whether there is an official test part; no
            image is read.
        in_memory: hold the decoded images where they need at most 4 GiB; else they are decoded batch by
            batch.

    Raises:
        InputError: the name is taken.
    """

    def register(
        read: Callable[..., tuple[ImageIndex, str]],
    ) -> Callable[..., tuple[ImageIndex, str]]:
        def load(root: Path | None, fold: int, max_skipped: float, *rest: str) -> LabelledImages:
            index, identity = read(root, *rest)
            return index.load(identity, max_skipped, in_memory=in_memory)

        _add(name, Source(load, own=True, has_test_part=has_test_part))
        return read

    return register


def _add(name: str, source: Source) -> None:
    if name in _SOURCES:
        raise InputError(f"a data source named {name!r} is registered already; take another name")
    _SOURCES[name] = source


def _find(name: str) -> tuple[Source, tuple[str, ...]] | None:
    """The source of a name, and what follows the registered prefix."""
    if name in _SOURCES and not name.endswith("/"):
        return _SOURCES[name], ()
    prefix = next((p for p in _SOURCES if p.endswith("/") and name.startswith(p)), None)
    return None if prefix is None else (_SOURCES[prefix], (name.removeprefix(prefix),))


def list_sources() -> list[str]:
    """Names of the datasets that :func:`load_source` knows; ``hfds/NAME`` stands for any name in its place.

    Published datasets come first, then those whose images are anybody's.
    """
    names = sorted(_SOURCES, key=lambda name: _SOURCES[name].own)
    return [f"{name}NAME" if name.endswith("/") else name for name in names]


def is_own(name: str) -> bool:
    """Whether a source holds anybody's images: of any size, some of them perhaps damaged."""
    source = _find(name)
    return source is not None and source[0].own


def has_test_part(name: str, root: Path | None) -> bool:
    """Whether a source of one's own (:func:`is_own`) has an official test part; no image is read.

    Args:
        name, root: as in :func:`load_source`.

    Raises:
        InputError: the files are not there, or it cannot be told what are parts and what classes.
    """
    source = _find(name)
    assert source is not None and source[0].own, "published sources are asked when they are read"  # noqa: PT018
    return source[0].has_test_part(root, *source[1])


def load_source(
    name: str, root: Path | None = None, fold: int = 0, max_skipped: float | None = None
) -> LabelledImages:
    """A dataset by name, its images at their native size.

    ``digits`` comes with the installation. ``mnist``, ``fashion_mnist``, ``cifar10`` and
    ``cifar100`` are read where torchvision puts them, the two CIFARs also from
    ``cifar10/{train,test}/CLASS/*.png`` (or ``.jpg``, or ``cifar10-jpeg``). ``tiny_imagenet`` is
    read in its original layout from ``tiny-imagenet-200`` or ``tiny-imagenet-100``, or from
    ``root`` itself. ``mnist_scale``, ``mnist_large_scale/1-4`` (trained
    at 1, 2 or 4, tested at 0.5 to 8) and ``stir_digits/BAND`` are made from ``mnist``. ``folder`` is
    anybody's: a sub-folder a class; ``unlabelled`` any folder of images, without classes; both are held in
    memory where they need at most 4 GiB. ``stream_folder``, ``stream_tar``, ``stream_wds`` (webdataset's
    shards) and ``hfds/NAME`` (Hugging Face's ``datasets``) are decoded batch by batch.

    Args:
        name: one of :func:`list_sources`, or ``hfds/NAME``.
        root: the folder that holds the data; default ``$NEARFAR_DATA``, else ``./data``. ``folder``
            and ``stream_…`` have no default.
        fold: which draw of ``mnist_scale``; other datasets have but one.
        max_skipped: of one's own images: which share of them may be left out because they cannot be
            read; default 0.01.

    Raises:
        InputError: unknown name, the files are not there or cannot be read, or ``max_skipped`` where images
            are published.
    """
    match = _find(name)
    if match is None:
        raise InputError(
            f"no data set is named {name!r}; the known ones are {', '.join(list_sources())}"
        )
    source, rest = match
    if max_skipped is not None and not source.own:
        raise InputError(
            f"the images of {name} are all needed, got max_skipped={max_skipped}; leave it out (it is for "
            f"folders and streams)"
        )
    share = _MAX_SKIPPED if max_skipped is None else max_skipped
    return source.load(root, fold, share, *rest)
