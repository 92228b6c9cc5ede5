"""Where images come from: data sets by name, each as tensors with labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torchvision.datasets import CIFAR10, CIFAR100, MNIST, FashionMNIST

from nearfar.data.sources.cifar import cifar_source
from nearfar.data.sources.digits import digits_source
from nearfar.data.sources.folder import folder_source
from nearfar.data.sources.idx import idx_source
from nearfar.data.sources.labelled import LabelledImages
from nearfar.data.sources.tiny_imagenet import tiny_imagenet_source
from nearfar.errors import InputError

__all__ = ["LabelledImages", "list_sources", "load_source"]

_SOURCES: dict[str, Callable[[Path | None], LabelledImages]] = {
    "digits": digits_source,
    "mnist": idx_source(MNIST),
    "fashion_mnist": idx_source(FashionMNIST),
    "cifar10": cifar_source("cifar10", CIFAR10),
    "cifar100": cifar_source("cifar100", CIFAR100),
    "tiny_imagenet": tiny_imagenet_source,
}


def list_sources() -> list[str]:
    """Names of the data sets that :func:`load_source` knows."""
    return [*_SOURCES, "folder"]


def load_source(name: str, root: Path | None = None, size: int | None = None) -> LabelledImages:
    """A data set by name.

    ``digits`` comes with the installation. ``mnist``, ``fashion_mnist``, ``cifar10`` and
    ``cifar100`` are read where torchvision puts them, the two CIFARs also from
    ``cifar10/{train,test}/CLASS/*.png`` (or ``.jpg``, or ``cifar10-jpeg``). ``tiny_imagenet`` is
    read in its original layout from ``tiny-imagenet-200`` or ``tiny-imagenet-100``, or from
    ``root`` itself. ``folder`` is anybody's: a sub-folder a class.

    Args:
        name: one of :func:`list_sources`.
        root: the folder that holds the data; default ``$NEARFAR_DATA``, else ``./data``. ``folder``
            has no default.
        size: with ``folder``, and only there: side in pixels at which images are stored.

    Raises:
        InputError: unknown name, the files are not there or cannot be read, they need more memory
            than 4 GiB, or ``size`` where images have their own.
    """
    if name == "folder":
        return folder_source(root, size)
    if name not in _SOURCES:
        raise InputError(
            f"no data set is named {name!r}; the known ones are {', '.join(list_sources())}"
        )
    if size is not None:
        raise InputError(
            f"the images of {name} have their own size, got size={size}; leave it out (it is for folder)"
        )
    return _SOURCES[name](root)
