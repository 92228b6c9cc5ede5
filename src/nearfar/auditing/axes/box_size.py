"""The axis ``box``: natural sizes, each thing counted where its box is as large as it is."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nearfar.auditing.audit_spec import AuditSpec, ImageSelection
from nearfar.auditing.audited_images import AuditedImages, Data, choose_images
from nearfar.auditing.audited_models import AuditedModel
from nearfar.auditing.axes.axis import AuditAxis, AuditPoints, register_axis
from nearfar.auditing.notes import background_note, covers
from nearfar.auditing.wording import BOX_SIZES, CROPPED_SIZES
from nearfar.data.boxes import BoxedImages, is_box_file, load_boxes
from nearfar.errors import InputError

__all__ = ["BoxSizeAxis", "bins_of_equal_counts", "sizes_on_canvas"]

_BINS = 8


@register_axis("box")
class BoxSizeAxis(AuditAxis):
    """Groups things by the size of their boxes, in groups of equal counts.

    A box's size is the geometric mean of its sides. Of whole images it is counted in the pixels of the
    baseline's input, after the image was resized for it. Where the thing fills what the network is shown
    (crops, and images without boxes) that would be one size for all, and it is counted in the file's own
    pixels.

    Args:
        bins: how many groups at most; things of equal size stay together.
        crop: show what each box holds, and not the whole image.
    """

    settings = ("bins", "crop")

    def __init__(self, bins: int = _BINS, crop: bool = False) -> None:
        self.bins, self.crop = bins, crop
        self._boxes: Tensor | None = None
        self._image_sizes: Tensor | None = None

    @classmethod
    def of(cls, spec: AuditSpec) -> BoxSizeAxis:
        """The axis with a specification's bins."""
        return cls(_BINS if spec.bins is None else spec.bins, spec.crop)

    @property
    def data_has_sizes(self) -> bool:
        """The points are those of the things."""
        return True

    def choose(
        self, data: Data, audited_models: Sequence[AuditedModel], selection: ImageSelection
    ) -> AuditedImages:
        """Things with boxes from a file of boxes; of other data, images that are filled by their thing.

        Raises:
            InputError: no such file or data, things that cannot be used, or ``crop`` without boxes.
        """
        if not isinstance(data, str | Path) or not is_box_file(str(data)):
            if isinstance(data, str | Path) and Path(data).suffix.lower() in (".json", ".csv"):
                raise InputError(f"there is no file {data}; name a file of boxes, or a folder")
            if self.crop:
                raise InputError(
                    "crop shows what boxes hold, and these images come without boxes; leave it out, or give "
                    "a file of boxes: COCO's JSON, or a CSV file of path, label, x, y, w, h"
                )
            images = choose_images(data, audited_models, selection)
            sizes = images.sizes
            if sizes is None:
                raise InputError(
                    f"the sizes of the images of {images.source} are not known; take files"
                )
            self._image_sizes = sizes
            return images
        boxed = load_boxes(
            Path(data),
            selection.root,
            crop=self.crop,
            class_names=_class_names(audited_models),
            num_classes=audited_models[0].classifier.input_spec.num_classes,
            max_skipped=selection.max_skipped,
        )
        return self._chosen(Path(data), boxed, audited_models, selection)

    def points(
        self, audited_models: Sequence[AuditedModel], images: AuditedImages | None
    ) -> AuditPoints:
        """Groups of equal counts by size; the largest things are what others are compared with.

        Raises:
            InputError: all things are of one size.
        """
        assert images is not None, "points depend on them"
        assert self._image_sizes is not None, "images were chosen"
        baseline = audited_models[0]
        whole = self._boxes is not None and not self.crop
        if whole:
            assert self._boxes is not None
            sizes, cut = sizes_on_canvas(self._boxes, self._image_sizes, baseline)
        else:
            sides = self._image_sizes if self._boxes is None else self._boxes[:, 2:]
            sizes, cut = sides.double().prod(1).sqrt(), 0
        values, bounds, group = bins_of_equal_counts(sizes, self.bins)
        if len(values) < 2:
            raise InputError(
                f"all things of {images.source} are {values[0]:g} pixels large, and there is nothing to "
                f"compare; give things of several sizes, or audit another axis"
            )
        members = torch.stack([group == k for k in range(len(values))])
        canvas = "×".join(map(str, baseline.protocol.canvas_size))
        counted = (
            f"in the pixels of {baseline.name}'s input of {canvas}, after the image was resized for it"
            if whole
            else "in the pixels of the file, since what is shown of it fills the input whatever its size"
        )
        counts = members.sum(1)
        notes = [
            f"A thing's size is the geometric mean of its sides, {counted}. There are {len(values)} groups "
            f"of {int(counts.min()):,} to {int(counts.max()):,} things; each stands at its geometric mean."
        ]
        if cut:
            notes.append(f"{cut:,} of {len(sizes):,} boxes reach beyond what the input shows.")
        words = BOX_SIZES if whole else CROPPED_SIZES
        return AuditPoints(values, values[-1], words, tuple(notes), members, bounds)

    def notes(
        self, model: AuditedModel, images: AuditedImages, points: AuditPoints
    ) -> tuple[str, ...]:
        """What is shown to a model of each thing."""
        protocol = model.protocol
        canvas = "×".join(map(str, protocol.canvas_size))
        what = "What a box holds is an image of its own: " if self.crop else ""
        return (
            f"{what}{covers(protocol, str(protocol.content))} about the middle of {model.name}'s input of "
            f"{canvas}; what is left empty is {background_note(protocol)}.",
        )

    def _chosen(
        self,
        file: Path,
        boxed: BoxedImages,
        audited_models: Sequence[AuditedModel],
        selection: ImageSelection,
    ) -> AuditedImages:
        """Some or all of the things."""
        plain = dataclasses.replace(selection, root=None, max_skipped=None)
        images = choose_images(boxed.dataset, audited_models, plain)
        self._boxes, self._image_sizes = boxed.boxes[images.which], boxed.image_sizes[images.which]
        total = len(boxed.boxes)
        drawn = f"All {total:,}" if len(images) == total else f"{len(images):,} of the {total:,}"
        notes = [f"{drawn} things with boxes of {file.name}."]
        skipped = boxed.dataset.skipped
        if skipped:
            where, why = skipped[0]
            notes.append(f"{len(skipped):,} boxes cannot be used (the first: {where}, {why}).")
        return dataclasses.replace(images, source=file.name, notes=tuple(notes), skipped=skipped)


def sizes_on_canvas(boxes: Tensor, image_sizes: Tensor, model: AuditedModel) -> tuple[Tensor, int]:
    """Sizes of things in the pixels of a model's input.

    Args:
        boxes: ``[N, 4]``: left, top, width, height in the file's pixels.
        image_sizes: ``[N, 2]``: height and width of the files.
        model: whose preprocessing resizes them.

    Returns:
        ``[N]`` geometric means of the boxes' sides, and how many boxes reach beyond the canvas.
    """
    protocol = model.protocol
    distinct, at = torch.unique(image_sizes, dim=0, return_inverse=True)
    layouts = [protocol.layout(height, width) for height, width in distinct.tolist()]
    resized = torch.tensor([size for size, _ in layouts], dtype=torch.float64)[at]
    offsets = torch.tensor([offset for _, offset in layouts], dtype=torch.float64)[at]
    # Rows and columns, as sizes are.
    factors = resized / image_sizes
    begin = boxes[:, [1, 0]] * factors + offsets
    sides = boxes[:, [3, 2]] * factors
    beyond = (begin < -1) | (begin + sides > torch.tensor(protocol.canvas_size) + 1)
    return sides.prod(1).sqrt(), int(beyond.any(1).sum())


def bins_of_equal_counts(
    sizes: Tensor, bins: int
) -> tuple[tuple[float, ...], tuple[tuple[float, float], ...], Tensor]:
    """Groups of equal counts by size.

    Args:
        sizes: ``[N]``, positive.
        bins: how many groups at most; equal sizes stay together.

    Returns:
        Each group's geometric mean, to three digits where they tell the groups apart; from which to which
        size each goes, without gaps; and ``[N]``, the group of each.
    """
    ordered = sizes.sort().values
    cuts = ordered[[round(k * len(sizes) / bins) for k in range(1, bins) if k * len(sizes) >= bins]]
    cuts = torch.unique(cuts[cuts > ordered[0]])
    group = torch.bucketize(sizes, cuts, right=True)
    count = len(cuts) + 1
    means = [float(sizes[group == k].log().mean().exp()) for k in range(count)]
    short = [float(f"{mean:.3g}") for mean in means]
    values = short if len(set(short)) == count else means
    below = [float(sizes[group == k].max()) for k in range(count - 1)]
    edges = [(low * float(cut)) ** 0.5 for low, cut in zip(below, cuts, strict=True)]
    edges = [float(ordered[0]), *edges, float(ordered[-1])]
    return tuple(values), tuple(itertools.pairwise(edges)), group


def _class_names(audited_models: Sequence[AuditedModel]) -> tuple[str, ...] | None:
    """The names of the classes, where a model knows them."""
    specs = (model.classifier.input_spec for model in audited_models)
    return next((spec.class_names for spec in specs if spec.class_names is not None), None)
