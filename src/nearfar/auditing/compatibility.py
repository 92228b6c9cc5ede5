"""Whether a classifier and a data set fit, and whether it was trained on it."""

from __future__ import annotations

from pathlib import Path

from nearfar.auditing.audited_models import AuditedModel
from nearfar.data import DataSpec, LabelledImages
from nearfar.data.image_dataset import channels_of
from nearfar.data.sources import is_own
from nearfar.errors import InputError
from nearfar.training.checkpoint import data_change

__all__ = ["check_fit", "check_unchanged", "is_its_own", "same_images"]


def check_fit(model: AuditedModel, source: str, dataset: LabelledImages) -> None:
    """Refuses data of other classes, or of channels that cannot become the classifier's.

    Raises:
        InputError: they do not fit.
    """
    input_spec, names = model.classifier.input_spec, dataset.class_names
    channels = channels_of(dataset.images)
    mend = "audit it on data of its own classes"
    if input_spec.num_classes != len(names):
        named = "" if input_spec.class_names is None else f" ({_some(input_spec.class_names)})"
        raise InputError(
            f"{model.name} answers with {input_spec.num_classes} classes{named}, {source} has {len(names)} "
            f"({_some(names)}); {mend}"
        )
    if input_spec.class_names is not None and input_spec.class_names != names:
        pairs = enumerate(zip(input_spec.class_names, names, strict=True))
        other = next(i for i, (a, b) in pairs if a != b)
        raise InputError(
            f"{model.name} knows the {len(names)} classes {_some(input_spec.class_names)}, {source} has the "
            f"classes {_some(names)}: class {other} is {input_spec.class_names[other]!r} there and "
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


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
