"""Which images an audit shows, what they hold, and whether a classifier fits them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nearfar.auditing.audit_spec import ImageSelection
from nearfar.auditing.audited_models import AuditedModel
from nearfar.data import DataSpec, LabelledImages, list_sources, load_source
from nearfar.data.image_dataset import ImageStore, channels_of, image_sizes, take_images
from nearfar.data.preprocess import Images
from nearfar.data.sources import is_own
from nearfar.data.splits import split_indices, stratified_order
from nearfar.data.unreadable import Skipped, describe_skipped
from nearfar.errors import InputError
from nearfar.training.checkpoint import data_change

__all__ = [
    "AuditedImages",
    "Data",
    "check_fit",
    "check_unchanged",
    "choose_images",
    "is_its_own",
    "same_images",
]

Data = str | Path | DataSpec | LabelledImages
"""A dataset: its name, a labelled folder, what training takes, or the images themselves."""
#: Decoded images of a batch take at most so many bytes, or are one image.
_BATCH_BYTES = 256 * 2**20


def check_fit(model: AuditedModel, source: str, dataset: LabelledImages) -> None:
    """Refuses data of other classes, or of channels that cannot become the classifier's.

    Raises:
        InputError: they do not fit.
    """
    input_spec, names = model.classifier.input_spec, dataset.class_names
    channels = channels_of(dataset.images)
    mend = "audit it on data of its own classes"
    if input_spec.num_classes != len(names):
        named = "" if input_spec.class_names is None else f" ({_listed(input_spec.class_names)})"
        raise InputError(
            f"{model.name} answers with {input_spec.num_classes} classes{named}, {source} has {len(names)} "
            f"({_listed(names)}); {mend}"
        )
    if input_spec.class_names is not None and input_spec.class_names != names:
        pairs = enumerate(zip(input_spec.class_names, names, strict=True))
        other = next(i for i, (a, b) in pairs if a != b)
        raise InputError(
            f"{model.name} knows the {len(names)} classes {_listed(input_spec.class_names)}, {source} has "
            f"the classes {_listed(names)}: class {other} is {input_spec.class_names[other]!r} there and "
            f"{names[other]!r} here; {mend}"
        )
    if input_spec.in_chans != channels and not {input_spec.in_chans, channels} <= {1, 3}:
        raise InputError(
            f"{model.name} takes images of {input_spec.in_chans} channel{'s' * (input_spec.in_chans > 1)}, "
            f"those of {source} have {channels}; audit it on such images: only grey and RGB become each other"
        )


def check_unchanged(model: AuditedModel, source: str, dataset: LabelledImages) -> None:
    """Refuses data that changed since a checkpoint was trained on them.

    Raises:
        InputError: they did.
    """
    trained = model.classifier.checkpoint
    assert trained is not None, "its own data are a checkpoint's"
    # Older records lack the key.
    changed = data_change(trained.record.get("data"), dataset.fingerprint())
    if changed:
        raise InputError(
            f"the images of {source} are not those that {trained.path} was trained with: {changed}, so that "
            f"it may have learnt images of this test; audit it on the data as they were, or train it again"
        )


def is_its_own(model: AuditedModel, spec: DataSpec) -> bool:
    """Whether data are those a checkpoint was trained on: anybody's images are others in another place."""
    trained = model.classifier.checkpoint
    trained_on = None if trained is None else trained.data
    if trained_on is None:
        return False
    if spec.source != trained_on.source or not is_own(spec.source):
        return spec.source == trained_on.source
    return _resolved(spec.root) == _resolved(trained_on.root)


def same_images(model: AuditedModel, source: str, dataset: LabelledImages) -> bool:
    """Whether data in another place are, by their fingerprint, those a checkpoint was trained on."""
    trained = model.classifier.checkpoint
    if trained is None or trained.data is None or not is_own(trained.data.source):
        return False
    return bool(trained.record.get("data") == dataset.fingerprint())


def _resolved(root: Path | None) -> Path | None:
    return None if root is None else root.resolve()


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


@dataclass(frozen=True)
class AuditedImages:
    """The images of an audit, read when they are asked for.

    Attributes:
        source: the dataset's name.
        class_names: what labels stand for.
        labels: ``[N]``, of the audited images.
        images: the audited images, at their native size.
        which: ``[N]``, where they are in the source.
        notes: which images these are, in sentences.
        skipped: files that were left out because they cannot be read: (path, why).
    """

    source: str
    class_names: tuple[str, ...]
    labels: Tensor
    images: Tensor | ImageStore
    which: Tensor
    notes: tuple[str, ...]
    skipped: Skipped = ()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, at: Tensor) -> Images:
        """Decoded images by their indices among the audited ones, at their native size."""
        return self.images[at]

    @property
    def channels(self) -> int:
        """Of the decoded images."""
        return channels_of(self.images)

    @property
    def sizes(self) -> Tensor | None:
        """``[N, 2]``: native height and width of the images, in pixels."""
        return image_sizes(self.images)

    def batches(self, which: Tensor, batch_size: int) -> Iterator[Tensor]:
        """Indices in batches of at most ``batch_size`` images, smaller where those are large.

        So memory depends neither on how many images there are nor on how large a few of them are.
        """
        sizes = self.sizes
        for at in torch.split(which, batch_size):
            if sizes is None:
                yield at
                continue
            area = self.channels * sizes[at].prod(1)
            share = torch.div(area.cumsum(0) - area, _BATCH_BYTES, rounding_mode="floor")
            yield from torch.split(
                at, torch.unique_consecutive(share, return_counts=True)[1].tolist()
            )


def choose_images(
    data: Data,
    audited_models: Sequence[AuditedModel],
    selection: ImageSelection = ImageSelection(),
) -> AuditedImages:
    """Finds the images of an audit.

    Args:
        data: the data set; an empty name: what the first checkpoint was trained on.
        audited_models: to which they are shown.
        selection: which of them.

    Returns:
        Of data that a checkpoint was trained on, the test images that its training put aside (of several
        checkpoints, those that all of them put aside); of a :class:`DataSpec`, its test images; of other
        data, the official test part, or all images where there is none.

    Raises:
        InputError: no data named, other classes or channels than the models', changed data, or more
            images asked for than there are.
    """
    root, count, max_skipped = selection.root, selection.count, selection.max_skipped
    if isinstance(data, LabelledImages):
        if root is not None or max_skipped is not None:
            raise InputError(
                f"the images themselves were given, got root={root} and max_skipped={max_skipped} too; leave "
                f"them out"
            )
        spec, dataset = None, data
    else:
        spec = _spec(data, root, audited_models)
        if max_skipped is not None:
            spec = dataclasses.replace(spec, max_skipped=max_skipped)
        dataset = load_source(spec.source, spec.root, spec.split_seed, spec.max_skipped)
    source = "given images" if spec is None else spec.source
    for model in audited_models:
        check_fit(model, source, dataset)
    trained = [] if spec is None else [e for e in audited_models if is_its_own(e, spec)]
    for model in trained:
        check_unchanged(model, source, dataset)
    trained += [e for e in audited_models if e not in trained and same_images(e, source, dataset)]
    if trained:
        which, note = _put_aside(trained, source, dataset, count)
    elif isinstance(data, DataSpec):
        which = split_indices(
            dataclasses.replace(data, test=count or data.test),
            *(dataset.labels, dataset.test_from, dataset.validation_from),
        )["test"]
        note = f"{len(which):,} test images of {source}, as the data's specification parts them."
    else:
        which, note = _untouched(source, dataset, count)
    left_out = describe_skipped(dataset.skipped, len(dataset.labels))
    return AuditedImages(
        source,
        dataset.class_names,
        dataset.labels[which],
        take_images(dataset.images, which),
        which,
        (note, left_out) if left_out else (note,),
        dataset.skipped,
    )


def _spec(
    data: str | Path | DataSpec, folder: Path | None, audited_models: Sequence[AuditedModel]
) -> DataSpec:
    if isinstance(data, DataSpec):
        return data if folder is None else dataclasses.replace(data, root=folder)
    checkpoints = [e.classifier.checkpoint for e in audited_models]
    trained = [c.data for c in checkpoints if c is not None and c.data is not None]
    word = str(data)
    if not word:
        if not trained:
            names = ", ".join(model.name for model in audited_models)
            raise InputError(
                f"{names} does not say what it was trained on; give data: the name of a data set, such as "
                f"cifar10, or a folder with a sub-folder a class"
            )
        return trained[0] if folder is None else dataclasses.replace(trained[0], root=folder)
    if word not in list_sources() and not is_own(word):
        if not Path(word).is_dir():
            raise InputError(
                f"no data set is named {word!r}, and there is no such folder; give a folder with a "
                f"sub-folder a class, or one of {', '.join(list_sources())}"
            )
        if folder is not None:
            raise InputError(f"{word} is a folder itself, got root={folder} too; leave it out")
        return DataSpec("folder", Path(word))
    same = next((spec for spec in trained if spec.source == word), None)
    if same is not None:
        return same if folder is None else dataclasses.replace(same, root=folder)
    return DataSpec(word, folder)


def _put_aside(
    trained: Sequence[AuditedModel], source: str, dataset: LabelledImages, count: int
) -> tuple[Tensor, str]:
    """Test images of what was trained on: those that every training put aside."""

    specs = [e.classifier.checkpoint.recipe.data for e in trained if e.classifier.checkpoint]
    parted = (dataset.labels, dataset.test_from, dataset.validation_from)

    def test(spec: DataSpec, count: int) -> Tensor:
        return split_indices(dataclasses.replace(spec, test=count), *parted)["test"]

    names = ", ".join(model.name for model in trained)
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
        which = _stratified(which, dataset.labels, source, count)
    return which, f"{len(which):,} test images of {source} that the training of {names} put aside."


def _untouched(source: str, dataset: LabelledImages, count: int) -> tuple[Tensor, str]:
    """The official test part, or all there is."""
    everything = torch.arange(len(dataset.labels))
    pool = everything if dataset.test_from is None else everything[dataset.test_from :]
    which = _stratified(pool, dataset.labels, source, count)
    drawn = (
        f"{len(which):,} of the {len(pool):,}" if len(which) < len(pool) else f"All {len(pool):,}"
    )
    if dataset.test_from is not None:
        return which, f"{drawn} images of the official test part of {source}."
    return which, (
        f"{drawn} images of {source}, which has no official test part: what a model has been trained on "
        f"among them counts as known."
    )


def _stratified(pool: Tensor, labels: Tensor, source: str, count: int) -> Tensor:
    if count > len(pool):
        raise InputError(
            f"{source} has {len(pool)} images to audit on, got images={count}; ask for fewer, or for 0, "
            f"which takes all"
        )
    if not count:
        return pool
    return pool[stratified_order(labels[pool])[:count]].sort().values
