"""Audited models: the classifiers of an audit, each with its name and the way it is shown images."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nearfar.classifiers import Classifier, InputOptions, Model, load_classifier
from nearfar.classifiers.exported_files import input_spec_path
from nearfar.data import ScaleProtocol
from nearfar.data.preprocess import Background, Images
from nearfar.errors import InputError

__all__ = ["AuditedModel", "Models", "open_models"]

Models = Model | Sequence[Model] | Mapping[str, Model]
"""One model, several, or several by name; each what :func:`nearfar.classifiers.load_classifier` takes."""


@dataclass(frozen=True)
class AuditedModel:
    """A classifier under audit.

    Attributes:
        name: in tables; no two of an audit have the same.
        classifier: what is asked.
        protocol: its canvas, and how images are laid on it.
        notes: what a reader has to know of its name.
    """

    name: str
    classifier: Classifier
    protocol: ScaleProtocol
    notes: tuple[str, ...] = ()

    def show(self, images: Images, scale: float) -> Tensor:
        """Decoded images → ``[B, in_chans, S, S]`` at a scale, values from 0 to 1."""
        return self.protocol.render(images, scale, channels=self.classifier.input_spec.in_chans)

    def show_each(self, images: Images, scales: Tensor) -> Tensor:
        """:meth:`show` with a scale of its own for each image, ``[B]``."""
        return self.protocol.render_each(
            images, scales, channels=self.classifier.input_spec.in_chans
        )


def open_models(
    models: Models, inputs: InputOptions = InputOptions(), background: Background | None = None
) -> tuple[AuditedModel, ...]:
    """Opens the models of an audit.

    Classifiers of the same name are numbered; a note says which is which.

    Args:
        models: one, several, or several by name.
        inputs: for all models but those that say themselves what they take: checkpoints and opened
            classifiers.
        background: in place of each protocol's own.

    Raises:
        InputError: no model, or one that cannot be opened.
    """
    named_models = _listed(models)
    open_ended = [_takes_settings(model) for _, model in named_models]
    opened = [
        load_classifier(model, **dataclasses.asdict(inputs))
        if takes
        or not any(open_ended)  # where none takes them, the first one's refusal is the error
        else load_classifier(model)
        for (_, model), takes in zip(named_models, open_ended, strict=True)
    ]
    names = [
        name or _short(classifier.name)
        for (name, _), classifier in zip(named_models, opened, strict=True)
    ]
    times = Counter(names)
    counts: Counter[str] = Counter()
    audited_models = []
    for name, (_, model), classifier in zip(names, named_models, opened, strict=True):
        notes: tuple[str, ...] = ()
        if times[name] > 1:
            counts[name] += 1
            number, shared = counts[name], name
            name = f"{shared}-{number}"
            what = model if isinstance(model, str | Path) else f"number {number} of those"
            notes = (f"{name} is {what}: {times[shared]} models are called {shared}.",)
        protocol = classifier.input_spec.protocol
        if background is not None:
            protocol = dataclasses.replace(protocol, background=background)
        audited_models.append(AuditedModel(name, classifier, protocol, notes))
    return tuple(audited_models)


def _listed(models: Models) -> list[tuple[str | None, Model]]:
    if isinstance(models, Mapping):
        pairs: list[tuple[str | None, Model]] = [(str(k), v) for k, v in models.items()]
    elif isinstance(models, Sequence) and not isinstance(models, str):
        pairs = [(None, model) for model in models]
    else:
        # nn.Sequential has a length and items, but is no Sequence.
        pairs = [(None, models)]
    if not pairs:
        raise InputError("an audit needs at least one model, got none")
    return pairs


def _short(name: str) -> str:
    """``NAME@FILE`` without the file's folders."""
    head, at, file = name.partition("@")
    return f"{head}{at}{Path(file).name}" if at else name


def _takes_settings(model: Model) -> bool:
    if isinstance(model, Classifier):
        return False
    word = str(model) if isinstance(model, str | Path) else ""
    if word.startswith("hub:") or (word and Path(word).is_dir()):
        return False
    path = Path(word)
    if path.suffix.lower() in (".onnx", ".pt2") and input_spec_path(path).is_file():
        return False
    return path.suffix.lower() != ".safetensors" or ("@" in word and not path.is_file())
