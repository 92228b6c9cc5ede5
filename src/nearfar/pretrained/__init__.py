"""What comes with the package: trained weights, and a few images of the data sets they know.

``weights/NAME.safetensors`` is a checkpoint of the network NAME, its numbers in half precision, with a card
beside it; ``samples/SET/CLASS/*`` are images of the test part of a data set. ``python -m
benchmarks.pretrained`` makes both.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from nearfar.errors import InputError

__all__ = [
    "list_pretrained",
    "list_samples",
    "pretrained_config",
    "pretrained_file",
    "sample_folder",
]

_HERE = Path(__file__).parent


def list_pretrained() -> list[str]:
    """Names of the networks whose weights come with the package.

    Examples:
        >>> "resnet20_cifar" in list_pretrained()
        True
    """
    return sorted(path.stem for path in (_HERE / "weights").glob("*.safetensors"))


def pretrained_file(name: str) -> Path | None:
    """The checkpoint that comes with the package; ``None`` where there is none of this name.

    Args:
        name: as :func:`nearfar.create_model` takes it.
    """
    path = _HERE / "weights" / f"{name}.safetensors"
    return path if name in list_pretrained() else None


@lru_cache
def pretrained_config(name: str) -> dict[str, Any]:
    """What timm's ``pretrained_cfg`` is to say of a network whose weights come with the package.

    Args:
        name: one of :func:`list_pretrained`.

    Returns:
        ``file``, ``num_classes``, ``label_names``, ``input_size``, and ``mean`` and ``std``, by which an
        image's values from 0 to 1 are normalised; under ``options``, those the network is built with.
    """
    from safetensors import safe_open

    path = _HERE / "weights" / f"{name}.safetensors"
    with safe_open(str(path), framework="numpy") as file:
        record = json.loads(file.metadata()["nearfar"])
    recipe, channels = record["recipe"], record["in_chans"]
    side = recipe["data"]["protocol"]["canvas"]
    figures = record["normalisation"] or {"mean": [0.0] * channels, "std": [1.0] * channels}
    return {
        "file": str(path),
        "num_classes": len(record["class_names"]),
        "label_names": record["class_names"],
        "input_size": (channels, side, side),
        "mean": tuple(figures["mean"]),
        "std": tuple(figures["std"]),
        "options": recipe["model"]["options"],
    }


def list_samples() -> list[str]:
    """Names of the sample images that come with the package, such as ``sample_digits``."""
    return sorted(f"sample_{path.name}" for path in (_HERE / "samples").iterdir() if path.is_dir())


def sample_folder(name: str) -> Path:
    """The folder of sample images, with a sub-folder a class.

    Args:
        name: one of :func:`list_samples`, such as ``sample_cifar10``.

    Raises:
        InputError: another name.

    Examples:
        >>> len(list(sample_folder("sample_digits").glob("*/*")))
        100
    """
    if name not in list_samples():
        raise InputError(
            f"there are no sample images named {name!r}; there are {', '.join(list_samples())}"
        )
    return _HERE / "samples" / name.removeprefix("sample_")
