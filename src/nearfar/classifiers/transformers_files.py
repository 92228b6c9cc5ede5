"""Classifiers of the ``transformers`` library: a folder, or a name on the hub of Hugging Face."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nearfar.classifiers.classifier import Classifier
from nearfar.classifiers.input_spec import InputOptions
from nearfar.classifiers.networks import from_network
from nearfar.data import ScaleProtocol
from nearfar.errors import InputError
from nearfar.models.transformers_nets import (
    NAME,
    plain_config,
    read_json,
    transformers_from_folder,
)
from nearfar.records import as_typed
from nearfar.training import ModelSpec

__all__ = ["PREFIX", "from_transformers", "is_transformers_folder", "preprocessing_of"]

#: What a word begins with that names one: ``hf:OWNER/NAME``, ``hf:OWNER/NAME@REVISION``, ``hf:FOLDER``.
PREFIX = "hf:"
_FILES = (
    "config.json",
    "preprocessor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
)
#: Pillow's numbers of its filters.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_Size = int | dict[str, int]
#: Types of what is read of a processor.
_FIELDS: dict[str, Any] = {
    "rescale_factor": float,
    "size": _Size,
    "crop_size": _Size,
    "crop_pct": float | None,
    "resample": int,
    "image_mean": list[float] | None,
    "image_std": list[float] | None,
}
#: Below this side, processors of ConvNeXt enlarge by ``crop_pct`` and crop.
_CROPPED_BELOW = 384


def is_transformers_folder(folder: Path) -> bool:
    """Whether a folder is one that transformers wrote."""
    config = folder / "config.json"
    if not config.is_file():
        return False
    try:
        return "model_type" in read_json(config)
    except InputError:
        return False


def from_transformers(word: str) -> Classifier:
    """Opens an image classifier of transformers', shown images as its own processor shows them.

    Args:
        word: a folder, or ``hf:OWNER/NAME`` with a revision or without, which is fetched once and kept where
            huggingface_hub keeps what it fetches.

    Raises:
        InputError: transformers is not installed, no image classifier of its there, a processor that does
            something else than resize, crop and normalise, or the hub cannot be reached.
    """
    name = word.removeprefix(PREFIX)
    folder = Path(name)
    if not folder.is_dir():
        folder = _fetched(name)
    elif not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json; name a folder that transformers wrote")
    network = transformers_from_folder(folder)
    processor = folder / "preprocessor_config.json"
    if not processor.is_file():
        raise InputError(
            f"{folder} has no preprocessor_config.json, which says how images are resized and normalised; "
            f"save its processor there too"
        )
    protocol, mean, std = preprocessing_of(read_json(processor), str(processor))
    spec = ModelSpec(NAME, {"config": plain_config(network)})
    options = InputOptions(mean, std)
    opened = from_network(network, word, options, spec, protocol)
    labels: Any = network.net.config.id2label  # type: ignore[union-attr]
    names = tuple(str(labels[i]) for i in range(len(labels)))
    if names == tuple(f"LABEL_{i}" for i in range(len(names))):
        return opened
    return dataclasses.replace(
        opened, input_spec=dataclasses.replace(opened.input_spec, class_names=names)
    )


def preprocessing_of(
    processor: dict[str, Any], source: str
) -> tuple[ScaleProtocol, tuple[float, ...], tuple[float, ...]]:
    """What a processor of transformers' does to an image.

    Args:
        processor: what its ``preprocessor_config.json`` holds.
        source: what it came from, for the errors' texts.

    Returns:
        How an image is laid on the canvas; mean and standard deviation of the channels, empty where nothing
        is normalised.

    Raises:
        InputError: it does something else than resize, crop at the middle, and normalise.

    Limits:
        Pixels are Pillow's, within one of 256 levels of what transformers makes of a tensor. Where a crop
        leaves an odd number of pixels over, its processors put the smaller half before it always, torchvision
        and nearfar every second time: such an image is shown one pixel further on.
    """
    for key in _FIELDS.keys() & processor.keys():
        as_typed(_FIELDS[key], processor[key], f"{source}: {key}")
    factor = processor.get("rescale_factor", 1 / 255)
    size = processor.get("size")
    plain = processor.get("do_resize", True) and processor.get("do_rescale", True)
    odd = [key for key in ("do_pad", "do_reduce_labels", "rescale_offset") if processor.get(key)]
    if not plain or odd or abs(factor - 1 / 255) > 1e-6 or not isinstance(size, dict | int):
        raise InputError(
            f"{source}: images must be resized, perhaps cropped at the middle, and their values divided by "
            f"255, got {', '.join(odd) or f'size={size!r}, rescale_factor={factor}'}; open the network in "
            f"Python and name its size and normalisation"
        )
    content, side = _content(size, source)
    canvas = content
    crop_pct = processor.get("crop_pct")
    if processor.get("do_center_crop"):
        canvas, _ = _content(processor.get("crop_size", size), source)
    elif side == "shorter" and crop_pct is not None:  # as ConvNeXt's
        if content[0] < _CROPPED_BELOW:
            content = (int(content[0] / crop_pct),) * 2
        else:
            side = "both"
    elif side == "shorter":
        raise InputError(
            f"{source}: images come out in sizes of their own (shortest_edge without a crop), got "
            f"size={size!r}; give the processor do_center_crop"
        )
    number = processor.get("resample", 2)
    if number not in _FILTERS:
        raise InputError(f"{source}: resample must be one of Pillow's filters, got {number}")
    protocol = ScaleProtocol(
        canvas=canvas,
        content=content,
        side=side,  # type: ignore[arg-type]
        interpolation=_FILTERS[number],  # type: ignore[arg-type]
    )
    if not processor.get("do_normalize", True):
        return protocol, (), ()
    mean, std = (tuple(processor.get(key) or ()) for key in ("image_mean", "image_std"))
    if not mean or not std:
        raise InputError(
            f"{source} normalises (do_normalize) without image_mean and image_std; save the processor with "
            f"both"
        )
    return protocol, mean, std


def _content(size: Any, source: str) -> tuple[tuple[int, int], str]:
    """Height and width that an image comes out in, and which sides of it decide."""
    if isinstance(size, int):
        return (size, size), "both"
    if isinstance(size, dict) and {"height", "width"} <= size.keys():
        return (int(size["height"]), int(size["width"])), "both"
    if isinstance(size, dict) and size.keys() == {"shortest_edge"}:
        return (int(size["shortest_edge"]),) * 2, "shorter"
    raise InputError(
        f"{source}: size must name height and width, or shortest_edge, got {size!r}; save the processor with "
        f"one of them"
    )


def _fetched(name: str) -> Path:
    """The files of a repository that say what the classifier is, its weights as safetensors alone."""
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=list(_FILES))
        )
    except Exception as cause:  # the client raises errors of three packages
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise InputError(
            f"{PREFIX}{name} cannot be fetched: {reason}; mend the name (OWNER/NAME, or a folder that is "
            f"there), or set HF_TOKEN for what is private"
        ) from cause
