"""Which images an audit shows, and what they hold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nearfar.auditing.entrants import Entrant
from nearfar.auditing.fitting import check_fit, check_unchanged, is_its_own, same_images
from nearfar.data import DataSpec, LabelledImages, list_sources, load_source
from nearfar.data.skipped import Skipped, say_skipped
from nearfar.data.sources import is_own
from nearfar.data.splits import split_indices, stratified_order
from nearfar.errors import InputError

__all__ = ["AuditedImages", "Data", "Side", "choose_images"]

Side = Literal["longer", "shorter"]

Data = str | Path | DataSpec | LabelledImages
"""A data set: its name, a labelled folder, what training takes, or the images themselves."""


@dataclass(frozen=True)
class AuditedImages:
    """The images of an audit, read when they are asked for.

    Attributes:
        source: the data set's name.
        class_names: what labels stand for.
        labels: ``[N]``, of the audited images.
        which: ``[N]``, where they are in the source.
        stored: the source by the side that protocols lay images on by: anybody's images are stored on
            squares, laid on by that side.
        notes: which images these are, in sentences.
        skipped: files that were left out because they cannot be read: (path, why).
    """

    source: str
    class_names: tuple[str, ...]
    labels: Tensor
    which: Tensor
    stored: Mapping[Side, LabelledImages]
    notes: tuple[str, ...]
    skipped: Skipped = ()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, at: Tensor, side: Side) -> Tensor:
        """Images by their indices among the audited ones: ``[B, C, h, w]``, values from 0 to 1."""
        images = self.stored[side].images[self.which[at]]
        # Once, not at every scale.
        return images.float() / 255 if images.dtype == torch.uint8 else images

    def native(self, side: Side) -> Tensor | None:
        """``[N]`` or ``[1]``: pixels that images hold along the side that covers the content.

        ``None`` where nobody knows: streams are not looked at beforehand.
        """
        stored = self.stored[side]
        height, width = stored.images.shape[-2:]
        here = min(height, width) if side == "shorter" else max(height, width)
        if stored.sides is not None:
            return stored.sides[self.which, 0 if side == "shorter" else 1].clamp(max=here)
        return torch.tensor([here]) if isinstance(stored.images, Tensor) else None


def choose_images(
    data: Data,
    root: Path | str | None,
    entrants: Sequence[Entrant],
    scales: Iterable[float],
    count: int = 0,
    max_skipped: float | None = None,
) -> AuditedImages:
    """Finds the images of an audit.

    Args:
        data: the data set; an empty name: what the first checkpoint was trained on.
        root: where it is.
        entrants: who is to be shown them.
        scales: at which scales; anybody's images are stored so large that all can be shown.
        count: how many, all classes in proportion; 0 takes all.
        max_skipped: which share of anybody's images may be left out because they cannot be read; default:
            what ``data`` say, or 0.01.

    Returns:
        Of data that a checkpoint was trained on, the test images that its training put aside (of several
        checkpoints, those that all of them put aside); of a :class:`DataSpec`, its test images; of other
        data, the official test part, or all images where there is none.

    Raises:
        InputError: no data named, other classes or channels than the models', changed data, or more
            images asked for than there are.
    """
    if isinstance(data, LabelledImages):
        if root is not None or max_skipped is not None:
            raise InputError(
                f"the images themselves were given, got root={root} and max_skipped={max_skipped} too; leave "
                f"them out"
            )
        spec, stored = None, dict.fromkeys((e.protocol.side for e in entrants), data)
    else:
        spec = _spec(data, root, entrants)
        if max_skipped is not None:
            spec = dataclasses.replace(spec, max_skipped=max_skipped)
        stored = _load(spec, entrants, tuple(scales))
    found = next(iter(stored.values()))
    source = "given images" if spec is None else spec.source
    for entrant in entrants:
        check_fit(entrant, source, found)
    learnt = [] if spec is None else [e for e in entrants if is_its_own(e, spec)]
    for entrant in learnt:
        check_unchanged(entrant, source, found)
    learnt += [e for e in entrants if e not in learnt and same_images(e, source, found)]
    if learnt:
        which, note = _put_aside(learnt, source, found, count)
    elif isinstance(data, DataSpec):
        which = split_indices(
            dataclasses.replace(data, test=count or data.test),
            *(found.labels, found.test_from, found.validation_from),
        )["test"]
        note = f"{len(which):,} test images of {source}, as the data's specification parts them."
    else:
        which, note = _untouched(source, found, count)
    left_out = say_skipped(found.skipped, len(found.labels))
    return AuditedImages(
        source,
        found.class_names,
        found.labels[which],
        which,
        stored,
        (note, left_out) if left_out else (note,),
        found.skipped,
    )


def _spec(
    data: str | Path | DataSpec, root: Path | str | None, entrants: Sequence[Entrant]
) -> DataSpec:
    place = None if root is None else Path(root)
    if isinstance(data, DataSpec):
        return data if place is None else dataclasses.replace(data, root=place)
    checkpoints = [e.recogniser.checkpoint for e in entrants]
    learnt = [c.data for c in checkpoints if c is not None and c.data is not None]
    word = str(data)
    if not word:
        if not learnt:
            names = ", ".join(entrant.name for entrant in entrants)
            raise InputError(
                f"{names} does not say what it was trained on; give data: the name of a data set, such as "
                f"cifar10, or a folder with a sub-folder a class"
            )
        return learnt[0] if place is None else dataclasses.replace(learnt[0], root=place)
    if word not in list_sources() and not is_own(word):
        if not Path(word).is_dir():
            raise InputError(
                f"no data set is named {word!r}, and there is no such folder; give a folder with a "
                f"sub-folder a class, or one of {', '.join(list_sources())}, hfds/NAME"
            )
        if place is not None:
            raise InputError(f"{word} is a folder itself, got root={place} too; leave it out")
        return DataSpec("folder", Path(word))
    same = next((spec for spec in learnt if spec.source == word), None)
    if same is not None:
        return same if place is None else dataclasses.replace(same, root=place)
    return DataSpec(word, place)


def _load(
    spec: DataSpec, entrants: Sequence[Entrant], scales: tuple[float, ...]
) -> dict[Side, LabelledImages]:
    stored: dict[Side, LabelledImages] = {}
    for side in dict.fromkeys(entrant.protocol.side for entrant in entrants):
        size = None
        if is_own(spec.source):
            sizes = [_stored_at(e, spec, scales) for e in entrants if e.protocol.side == side]
            size = max(sizes)
        stored[side] = load_source(
            spec.source, spec.root, size, spec.split_seed, spec.max_skipped, side
        )
    return stored


def _stored_at(entrant: Entrant, spec: DataSpec, scales: tuple[float, ...]) -> int:
    """On how large a square an entrant needs images: as its training stored them, or for all scales."""
    if spec.size is not None:
        return spec.size
    trained = entrant.recogniser.checkpoint
    if trained is not None and is_its_own(entrant, spec):
        size = trained.recipe.data.explicit().size
        assert size is not None, "explicit"
        return size
    return math.ceil(entrant.protocol.content * max(scales))


def _put_aside(
    learnt: Sequence[Entrant], source: str, found: LabelledImages, count: int
) -> tuple[Tensor, str]:
    """Test images of what was trained on: those that every training put aside."""

    specs = [e.recogniser.checkpoint.recipe.data for e in learnt if e.recogniser.checkpoint]
    parted = (found.labels, found.test_from, found.validation_from)

    def test(spec: DataSpec, count: int) -> Tensor:
        return split_indices(dataclasses.replace(spec, test=count), *parted)["test"]

    names = ", ".join(entrant.name for entrant in learnt)
    parts = [test(spec, count or spec.test) for spec in specs]
    which = parts[0]
    if any(not torch.equal(which, other) for other in parts[1:]):
        parts = [test(spec, 0) for spec in specs]  # all that each left
        which = parts[0]
        for other in parts[1:]:
            which = which[torch.isin(which, other)]
        if not len(which):
            raise InputError(
                f"{names} were trained on different parts of {source}, so that no image is left that "
                f"none has learnt; audit them one by one, or on other data"
            )
        which = _some(which, found.labels, source, count)
    return which, f"{len(which):,} test images of {source} that the training of {names} put aside."


def _untouched(source: str, found: LabelledImages, count: int) -> tuple[Tensor, str]:
    """The official test part, or all there is."""
    everything = torch.arange(len(found.labels))
    pool = everything if found.test_from is None else everything[found.test_from :]
    which = _some(pool, found.labels, source, count)
    drawn = (
        f"{len(which):,} of the {len(pool):,}" if len(which) < len(pool) else f"All {len(pool):,}"
    )
    if found.test_from is not None:
        return which, f"{drawn} images of the official test part of {source}."
    return which, (
        f"{drawn} images of {source}, which has no official test part: what a model has been trained on "
        f"among them counts as known."
    )


def _some(pool: Tensor, labels: Tensor, source: str, count: int) -> Tensor:
    if count > len(pool):
        raise InputError(
            f"{source} has {len(pool)} images to audit on, got images={count}; ask for fewer, or for 0, "
            f"which takes all"
        )
    if not count:
        return pool
    return pool[stratified_order(labels[pool])[:count]].sort().values
