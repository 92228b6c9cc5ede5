"""Tiny ImageNet in the layout that Stanford's CS231n gave it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from nearfar.data.image_dataset import LabelledImages, data_folder
from nearfar.data.image_files import file_identity, image_files
from nearfar.data.sources.registry import register_source
from nearfar.data.stored_images import PathEntry, hold_images
from nearfar.data.unreadable import refuse_too_many
from nearfar.errors import InputError
from nearfar.records import short_repr

__all__ = ["tiny_imagenet_source"]

_FOLDERS = ("tiny-imagenet-200", "tiny-imagenet-100")
_SIDE = 64


@register_source("tiny_imagenet")
def tiny_imagenet_source(root: Path | None) -> LabelledImages:
    """Images of 64×64: ``train/WNID/images``, and ``val`` as the official test part.

    Labels follow the order of ``wnids.txt``, names come from ``words.txt`` (the first of several;
    where two classes share it, with the wnid). The published test images have no labels and are not
    read.

    Args:
        root: the folder itself, or one that holds ``tiny-imagenet-200`` or ``tiny-imagenet-100``.

    Raises:
        InputError: not found, files that contradict each other, or unreadable images.
    """
    parent = data_folder(root)
    candidates = (parent, *(parent / name for name in _FOLDERS))
    folder = next((p for p in candidates if (p / "wnids.txt").is_file()), None)
    if folder is None:
        raise InputError(
            f"Tiny ImageNet was not found: no wnids.txt in {parent} nor in its {' or '.join(_FOLDERS)}; name "
            f"the unpacked folder as root, or the one that holds it as root or in NEARFAR_DATA"
        )
    wnids = _lines(folder / "wnids.txt")
    number = {wnid: i for i, wnid in enumerate(wnids)}
    odd = [wnid for wnid in wnids if not wnid.isalnum()]  # such as a path that would lead elsewhere
    if odd:
        raise InputError(
            f"{folder / 'wnids.txt'} must name a class a line, such as n01443537, got {short_repr(odd[0])}; "
            f"unpack Tiny ImageNet afresh"
        )
    if len(number) < len(wnids) or len(wnids) < 2:
        raise InputError(
            f"{folder / 'wnids.txt'} must name at least two classes, each once, got {len(wnids)} lines "
            f"with {len(number)} names"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for wnid in wnids:
        class_paths = image_files(folder / "train" / wnid / "images")
        paths += class_paths
        labels += [number[wnid]] * len(class_paths)
    test_from = len(paths)
    annotated = _annotations(folder / "val", number)
    paths += annotated
    labels += annotated.values()
    encoded_bytes = sum(path.stat().st_size for path in paths)
    images, _, faults = hold_images(
        [PathEntry(path) for path in paths], file_identity(paths, "files"), encoded_bytes, _SIDE
    )
    refuse_too_many([(str(paths[f.index]), f.why) for f in faults], len(paths), 0)
    return LabelledImages(
        images,
        torch.tensor(labels),
        _names(folder, wnids),
        test_from,
        edition=folder.name,
    )


def _annotations(val: Path, number: dict[str, int]) -> dict[Path, int]:
    """The validation images and their classes: ``FILE <tab> WNID <tab> box``, a line each."""
    file = val / "val_annotations.txt"
    labels: dict[Path, int] = {}
    for line in _lines(file):
        name, wnid, *_ = [*line.split("\t"), ""]
        path = val / "images" / name
        # A name with a folder in it would lead elsewhere.
        if wnid not in number or path in labels or Path(name).name != name:
            raise InputError(
                f"{file}: the line {line!r} must begin with a file's name, a tab and a class of wnids.txt, "
                f"and every file have one line"
            )
        labels[path] = number[wnid]
    paths = set(image_files(val / "images"))
    if paths != labels.keys():
        odd = sorted(str(path) for path in paths ^ labels.keys())
        raise InputError(
            f"{file} and {val / 'images'} disagree about {len(odd)} images: {', '.join(odd[:5])}"
            f"{' …' if len(odd) > 5 else ''}; unpack Tiny ImageNet afresh"
        )
    return labels


def _names(folder: Path, wnids: list[str]) -> tuple[str, ...]:
    rows = (line.partition("\t") for line in _lines(folder / "words.txt"))
    words = {wnid: names for wnid, _, names in rows}
    names = [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    count = Counter(names)
    return tuple(
        name if count[name] == 1 else f"{name} ({wnid})"
        for name, wnid in zip(names, wnids, strict=True)
    )


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(f"{file} cannot be read: {cause}; unpack Tiny ImageNet afresh") from cause
    return [line.strip() for line in text.splitlines() if line.strip()]
