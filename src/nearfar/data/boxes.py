"""Things in images with their boxes: COCO's JSON, or a CSV file of path, label, x, y, w, h."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearfar.data.image_dataset import ImageStore, LabelledImages, channels_of, image_sizes
from nearfar.data.image_files import file_identity
from nearfar.data.stored_images import PathEntry, hold_images
from nearfar.data.unreadable import refuse_too_many
from nearfar.errors import InputError
from nearfar.records import parse_json

__all__ = ["BoxedImages", "CroppedImages", "is_box_file", "load_boxes"]

#: A file of COCO's has 900,000 things of some dozen values each.
_MOST_VALUES = 100_000_000
_COLUMNS = ("path", "label", "x", "y", "w", "h")
#: Boxes reach this far beyond an image where their corners were rounded.
_ROUNDING = 1.0
_MAX_SKIPPED = 0.01

_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class BoxedImages:
    """Things in images, one an entry.

    Attributes:
        dataset: an image for each thing: the whole one, or what its box holds.
        boxes: ``[N, 4]`` float64: left, top, width and height of each thing's box, in pixels of the file.
        image_sizes: ``[N, 2]``: height and width of the whole image of each.
    """

    dataset: LabelledImages
    boxes: Tensor
    image_sizes: Tensor


@dataclass(frozen=True)
class _Row:
    """One thing as a file names it; ``fault``: why it cannot be used, where that is seen already."""

    where: str
    path: str = ""
    label: str = ""
    box: _Box = (0.0, 0.0, 0.0, 0.0)
    size: tuple[int, int] | None = None
    fault: str = ""


class CroppedImages:
    """What boxes hold, cut out of images when it is asked for.

    Args:
        images: the whole ones.
        which: ``[N]``, the image of each thing.
        boxes: ``[N, 4]``: left, top, width, height, in pixels, within the image.
        image_sizes: ``[N, 2]``: height and width of the whole images.
    """

    def __init__(
        self, images: Tensor | ImageStore, which: Tensor, boxes: Tensor, image_sizes: Tensor
    ) -> None:
        self.channels = channels_of(images)
        self._images, self._which = images, which
        # Pixels that a box covers in part belong to it.
        self._end = torch.minimum((boxes[:, :2] + boxes[:, 2:]).ceil().long(), image_sizes.flip(1))
        begin = boxes[:, :2].floor().clamp(min=0).long()
        self._begin = torch.minimum(begin, self._end - 1)

    @property
    def sizes(self) -> Tensor:
        """``[N, 2]``: height and width of what the boxes hold."""
        return (self._end - self._begin).flip(1)

    def __len__(self) -> int:
        return len(self._which)

    def __getitem__(self, indices: Tensor, /) -> Sequence[Tensor]:
        distinct, at = torch.unique(self._which[indices], return_inverse=True)
        images = self._images[distinct]
        crops = []
        for i, image in zip(indices.tolist(), at.tolist(), strict=True):
            (left, top), (right, bottom) = self._begin[i].tolist(), self._end[i].tolist()
            crops.append(images[image][:, top:bottom, left:right])
        return crops


def is_box_file(word: str) -> bool:
    """Whether a name is that of a file of boxes."""
    return Path(word).suffix.lower() in (".json", ".csv") and Path(word).is_file()


def load_boxes(
    file: Path,
    root: Path | None,
    *,
    crop: bool,
    class_names: Sequence[str] | None,
    num_classes: int,
    max_skipped: float | None = None,
) -> BoxedImages:
    """Reads things with their boxes, and the images that hold them.

    Args:
        file: COCO's JSON (``images``, ``annotations``, ``categories``; crowds are passed over), or a CSV file
            whose first line names the columns path, label, x, y, w and h (left, top, width and height in
            pixels of the image as it is shown, turned as its EXIF data ask).
        root: the folder that paths start from; default: the file's own.
        crop: give what each box holds; else the whole image, which then must hold one box.
        class_names: what the labels may be, in order; ``None``: COCO's categories by number, or the labels of
            the CSV file in order (where they are numbers, those from 0 to ``num_classes`` - 1).
        num_classes: how many classes a model tells apart.
        max_skipped: which share of the things may be left out because something is wrong with them; default:
            0.01.

    Raises:
        InputError: not such a file.
        UnreadableFilesError: more cannot be used: boxes outside of their image or without area, unknown
            classes, files that are missing or cannot be read, several boxes in an image that is to be whole.
    """
    rows, named = (_coco_rows if file.suffix.lower() == ".json" else _csv_rows)(file)
    if not rows:
        raise InputError(f"{file} names no thing with a box; add some")
    names = _names(class_names, named, num_classes)
    rows = [_located(row, root or file.parent, names) for row in rows]
    paths = sorted({row.path for row in rows if not row.fault})
    images, readable, faults = hold_images(
        [PathEntry(Path(path)) for path in paths],
        file_identity([Path(path) for path in paths], "files"),
        sum(Path(path).stat().st_size for path in paths),
    )
    unreadable = {paths[fault.index]: fault.why for fault in faults}
    at = {paths[entry]: i for i, entry in enumerate(readable.tolist())}
    sizes = image_sizes(images)
    assert sizes is not None, "files were looked at"
    counts = Counter(row.path for row in rows if not row.fault)
    skipped, used = [], []
    for row in rows:
        fault = row.fault
        if not fault and row.path in unreadable:
            fault = f"{row.path} cannot be read: {unreadable[row.path]}"
        fault = fault or _box_fault(row, sizes[at[row.path]].tolist())
        if not fault and not crop and counts[row.path] > 1:
            fault = (
                f"its image has {counts[row.path]} boxes, and whole images must have one; take crop"
            )
        if fault:
            skipped.append((row.where, fault))
        else:
            used.append((at[row.path], row))
    share = _MAX_SKIPPED if max_skipped is None else max_skipped
    refuse_too_many(skipped, len(rows), share, what="boxes cannot be used")
    which = torch.tensor([image for image, _ in used])
    boxes = torch.tensor([row.box for _, row in used], dtype=torch.float64)
    labels = torch.tensor([names.index(row.label) for _, row in used])
    cut = CroppedImages(images, which, boxes, sizes[which])
    store = cut if crop else _Wholes(images, which)
    dataset = LabelledImages(store, labels, names, test_from=0, skipped=tuple(skipped))
    return BoxedImages(dataset, boxes, sizes[which])


def _names(
    class_names: Sequence[str] | None, named: Sequence[str], num_classes: int
) -> tuple[str, ...]:
    """The classes: the model's, numbers from 0 where labels are such, or the file's."""
    if class_names is not None:
        return tuple(class_names)
    if all(name.isdecimal() for name in named):
        return tuple(map(str, range(num_classes)))
    return tuple(named)


class _Wholes:
    """The whole image of each thing."""

    def __init__(self, images: Tensor | ImageStore, which: Tensor) -> None:
        self.channels = channels_of(images)
        self._images, self._which = images, which

    @property
    def sizes(self) -> Tensor | None:
        sizes = image_sizes(self._images)
        return None if sizes is None else sizes[self._which]

    def __len__(self) -> int:
        return len(self._which)

    def __getitem__(self, indices: Tensor, /) -> Sequence[Tensor]:
        images = self._images[self._which[indices]]
        return list(images)


def _located(row: _Row, folder: Path, names: Sequence[str]) -> _Row:
    """A row with the path of its file; with a fault where file or class cannot be used."""
    if row.fault:
        return row
    path, base = os.path.normpath(folder / row.path), os.path.normpath(folder)
    fault = ""
    if Path(base) not in Path(path).parents:
        fault = f"{row.path} is not below {folder}"
    elif not os.path.isfile(path):  # noqa: PTH113 (which does not raise for names that are too long)
        fault = f"{path} is missing"
    elif row.label not in names:
        some = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
        fault = f"the class {row.label!r} is unknown; classes are {some}"
    return dataclasses.replace(row, path=path, fault=fault)


def _box_fault(row: _Row, size: Sequence[int]) -> str:
    """What is wrong with a box in an image of this height and width."""
    left, top, width, height = row.box
    box = f"{left:g}, {top:g}, {width:g}, {height:g}"
    if not all(map(math.isfinite, row.box)) or width <= 0 or height <= 0:
        return f"the box {box} has no area"
    if row.size is not None and row.size != tuple(size):
        drawn = "×".join(map(str, row.size))
        return f"it was drawn in an image of {drawn}, and the file has {size[0]}×{size[1]}"
    edges = (-left, -top, left + width - size[1], top + height - size[0])
    if max(edges) > _ROUNDING:
        return f"the box {box} reaches outside of its image of {size[0]}×{size[1]}"
    return ""


def _csv_rows(file: Path) -> tuple[list[_Row], tuple[str, ...]]:
    """The things of a CSV file, and its labels in order."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(f"{file} cannot be read: {cause}") from cause
    reader = csv.DictReader(lines, skipinitialspace=True)
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(
            f"the first line of {file} must name the columns {', '.join(_COLUMNS)}, got "
            f"{', '.join(reader.fieldnames or ()) or 'nothing'}; add {', '.join(missing)}"
        )
    rows = [_csv_row(f"{file}:{reader.line_num}", fields) for fields in reader]
    return rows, tuple(sorted({row.label for row in rows if not row.fault}))


def _csv_row(where: str, fields: dict[str, Any]) -> _Row:
    words = {name: (fields[name] or "").strip() for name in _COLUMNS}
    if not words["path"] or not words["label"]:
        return _Row(where, fault="it has no path or no label")
    try:
        box = tuple(float(words[name]) for name in "xywh")
    except ValueError:
        return _Row(where, fault=f"{', '.join(words[n] for n in 'xywh')} are not four numbers")
    return _Row(where, words["path"], words["label"], (box[0], box[1], box[2], box[3]))


def _coco_rows(file: Path) -> tuple[list[_Row], tuple[str, ...]]:
    """The things of COCO's JSON, and its categories by their numbers."""
    try:
        content = parse_json(file.read_bytes(), str(file), "write it again", most=_MOST_VALUES)
        images = {image["id"]: image for image in content["images"]}
        categories = {c["id"]: str(c["name"]) for c in content["categories"]}
        annotations = list(content["annotations"])
        named = tuple(categories[number] for number in sorted(categories))
    except InputError:
        raise
    except (OSError, KeyError, TypeError, AttributeError) as cause:
        raise InputError(
            f"{file} is no COCO file of boxes ({type(cause).__name__}: {cause}); it needs images (id, "
            f"file_name), categories (id, name) and annotations (image_id, category_id, bbox)"
        ) from cause
    return list(_annotated(file, annotations, images, categories)), named


def _annotated(
    file: Path, annotations: list[Any], images: dict[Any, Any], categories: dict[Any, str]
) -> Iterator[_Row]:
    for position, annotation in enumerate(annotations):
        where = f"{file}: annotation {position}"
        try:
            if annotation.get("iscrowd"):
                continue
            where = f"{file}: annotation {annotation.get('id', position)}"
            image = images.get(annotation["image_id"])
            label = categories.get(annotation["category_id"], str(annotation["category_id"]))
            left, top, width, height = (float(number) for number in annotation["bbox"])
            if image is None:
                yield _Row(where, fault=f"there is no image {annotation['image_id']!r}")
                continue
            size = None
            if "height" in image and "width" in image:
                size = (int(image["height"]), int(image["width"]))
            yield _Row(where, str(image["file_name"]), label, (left, top, width, height), size)
        except (AttributeError, KeyError, TypeError, ValueError) as cause:
            yield _Row(where, fault=f"it lacks something ({type(cause).__name__}: {cause})")
