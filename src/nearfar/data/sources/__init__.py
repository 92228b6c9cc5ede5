"""Where images come from: data sets by name, each as tensors with labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from torchvision.datasets import CIFAR10, CIFAR100, MNIST, FashionMNIST

from nearfar.data.sources.cifar import cifar_source
from nearfar.data.sources.decoding import Square
from nearfar.data.sources.digits import digits_source
from nearfar.data.sources.files import file_identity
from nearfar.data.sources.folder import folder_listing, folder_parts, folder_source
from nearfar.data.sources.hub import hub_listing, hub_parts
from nearfar.data.sources.idx import idx_source
from nearfar.data.sources.labelled import LabelledImages
from nearfar.data.sources.listing import Listing
from nearfar.data.sources.mnist_scale import mnist_scale_source
from nearfar.data.sources.streaming import ImageFile, streamed
from nearfar.data.sources.tars import shard_listing, shard_parts, tar_listing, tar_parts
from nearfar.data.sources.tiny_imagenet import tiny_imagenet_source
from nearfar.data.sources.unlabelled import unlabelled_source
from nearfar.errors import InputError

__all__ = ["LabelledImages", "has_test_part", "is_own", "list_sources", "load_source"]

_SOURCES: dict[str, Callable[[Path | None], LabelledImages]] = {
    "digits": digits_source,
    "mnist": idx_source(MNIST),
    "fashion_mnist": idx_source(FashionMNIST),
    "cifar10": cifar_source("cifar10", CIFAR10),
    "cifar100": cifar_source("cifar100", CIFAR100),
    "tiny_imagenet": tiny_imagenet_source,
}


#: Sources of anybody's images, which are stored at a size of one's choice.
_OWN = ("folder", "unlabelled", "stream_folder", "stream_tar", "stream_wds")
_HUB = "hfds/"


def list_sources() -> list[str]:
    """Names of the data sets that :func:`load_source` knows; ``hfds/NAME`` is known besides."""
    return [*_SOURCES, "mnist_scale", *_OWN]


def is_own(name: str) -> bool:
    """Whether a source holds anybody's images: of any size, some of them perhaps damaged."""
    return name in _OWN or name.startswith(_HUB)


def has_test_part(name: str, root: Path | None) -> bool:
    """Whether a source of one's own (:func:`is_own`) has an official test part; no image is read.

    Args:
        name, root: as in :func:`load_source`.

    Raises:
        InputError: the files are not there, or it cannot be told what are parts and what classes.
    """
    assert is_own(name), "published sources are asked for their parts when they are read"
    if name == "unlabelled":
        return False
    if name in ("folder", "stream_folder"):
        return folder_parts(root)[1] is not None
    if name == "stream_tar":
        parts = tar_parts(root)
    elif name == "stream_wds":
        parts = shard_parts(root)
    else:
        parts = hub_parts(name.removeprefix(_HUB))
    return parts is not None and parts.test is not None


def load_source(
    name: str,
    root: Path | None = None,
    size: int | None = None,
    fold: int = 0,
    max_skipped: float | None = None,
    side: Literal["longer", "shorter"] = "longer",
) -> LabelledImages:
    """A data set by name.

    ``digits`` comes with the installation. ``mnist``, ``fashion_mnist``, ``cifar10`` and
    ``cifar100`` are read where torchvision puts them, the two CIFARs also from
    ``cifar10/{train,test}/CLASS/*.png`` (or ``.jpg``, or ``cifar10-jpeg``). ``tiny_imagenet`` is
    read in its original layout from ``tiny-imagenet-200`` or ``tiny-imagenet-100``, or from
    ``root`` itself. ``mnist_scale`` is made from ``mnist``. ``folder`` is anybody's: a sub-folder a
    class; ``unlabelled`` any folder of images, without classes. Those are held in memory.
    ``stream_folder``, ``stream_tar``, ``stream_wds`` (webdataset's shards) and ``hfds/NAME`` (Hugging
    Face's ``datasets``) are read batch by batch.

    Args:
        name: one of :func:`list_sources`, or ``hfds/NAME``.
        root: the folder that holds the data; default ``$NEARFAR_DATA``, else ``./data``. ``folder``
            and ``stream_…`` have no default.
        size: with ``folder``, ``unlabelled``, ``stream_…`` and ``hfds/…``, and only there: side in
            pixels at which images are stored.
        fold: which draw of ``mnist_scale``; other data sets have but one.
        max_skipped: with the same: which share of the images may be left out because they cannot be
            read; default 0.01.
        side: with the same: which side of an image fills the square on which it is stored.

    Raises:
        InputError: unknown name, the files are not there or cannot be read, they need more memory
            than 4 GiB, or ``size`` or ``max_skipped`` where images are published.
    """
    if is_own(name):
        place = Square.of(size, side)
        share = 0.01 if max_skipped is None else max_skipped
        if name == "folder":
            return folder_source(root, place, share)
        if name == "unlabelled":
            return unlabelled_source(root, place, share)
        listing, identity = _listed(name, root)
        return streamed(listing, place, identity, share)
    if name not in list_sources():
        raise InputError(
            f"no data set is named {name!r}; the known ones are {', '.join(list_sources())}, hfds/NAME"
        )
    if size is not None or max_skipped is not None:
        raise InputError(
            f"the images of {name} have their own size and are all needed, got size={size} and "
            f"max_skipped={max_skipped}; leave them out (they are for folders and streams)"
        )
    if name == "mnist_scale":
        return mnist_scale_source(root, fold)
    return _SOURCES[name](root)


def _listed(name: str, root: Path | None) -> tuple[Listing[Any], str]:
    """A streamed source's images, and what identifies their content."""
    if name == "stream_folder":
        found = folder_listing(*folder_parts(root))
        where = [ImageFile(path) for path in found.where]
        listing = Listing(where, found.labels, found.class_names, found.test_from)
        return listing, file_identity(found.where, name)
    if name == "stream_tar":
        return tar_listing(root)
    if name == "stream_wds":
        return shard_listing(root)
    return hub_listing(name.removeprefix(_HUB), root)
