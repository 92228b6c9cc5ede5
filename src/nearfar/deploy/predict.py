"""predict: what a classifier makes of images."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from nearfar.classifiers import Answers, Classifier, Model, load_classifier
from nearfar.data.decoding import Fault, quiet_pillow
from nearfar.deploy.images import ImageFile, named_images
from nearfar.errors import InputError
from nearfar.progress import Progress, Step, silent

__all__ = ["Prediction", "predict"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """A classifier's answer to one image, or why there is none.

    Attributes:
        path: which image; ``-`` for one that came from standard input.
        label: name of the likeliest class; its number, as text, where nobody has named them.
        index: the likeliest class's number; -1 without an answer.
        confidence: its softmax probability, from 0 to 1.
        top: the likeliest classes in order, each with its probability.
        error: why the image could not be read or answered; empty where it was.
    """

    path: str
    label: str = ""
    index: int = -1
    confidence: float = 0.0
    top: tuple[tuple[str, float], ...] = ()
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a line of JSON: ``path`` and ``error``, or ``path`` and the answer.

        Probabilities have six significant digits.
        """
        if self.error:
            return {"path": self.path, "error": self.error}
        return {
            "path": self.path,
            "label": self.label,
            "index": self.index,
            "confidence": _short(self.confidence),
            "top": [[label, _short(share)] for label, share in self.top],
        }


def predict(
    model: Model,
    images: str | Path | Sequence[str | Path],
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    size: int | None = None,
    num_classes: int | None = None,
    answers: Answers | None = None,
    output: str | None = None,
    crop_pct: float | None = None,
    top: int = 5,
    batch_size: int = 32,
    stdin: IO[bytes] | None = None,
    progress: Progress = silent,
) -> Iterator[Prediction]:
    """Asks a classifier about images, and yields its answers in their order.

    Every image is turned as its EXIF data ask and laid on the classifier's canvas as its input spec says, at
    scale 1, whatever its size; so training, audit and this see images alike. Classifiers of one
    channel see colours as grey: 0.299 R + 0.587 G + 0.114 B. What cannot be read is answered with an
    ``error``, and the rest goes on. No more than a batch of images is in memory.

    Args:
        model: what :func:`nearfar.load_classifier` takes.
        images: files, folders (all images below them, hidden ones left out), or ``-``: standard input, which
            holds one encoded image, or paths, one a line.
        mean, std, size, num_classes, answers, output, crop_pct: as in :func:`nearfar.load_classifier`.
        top: how many of the likeliest classes to name.
        batch_size: how many images are answered at once.
        stdin: what ``-`` reads; default: the process's own.
        progress: called after each batch.

    Returns:
        An iterator over one :class:`Prediction` an image. Arguments are checked, and the classifier is
        opened, before it is returned; images are read as it advances.

    Raises:
        InputError: a classifier that cannot be opened or takes neither 1 nor 3 channels, no image, or a
            number below 1.
    """
    for name, value in (("top", top), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    words = [images] if isinstance(images, str | Path) else list(images)
    opened = load_classifier(model, mean, std, size, num_classes, answers, output, crop_pct)
    if opened.input_spec.in_chans not in (1, 3):
        raise InputError(
            f"{opened.name} takes images of {opened.input_spec.in_chans} channels; image files give 1 (grey) "
            f"or 3"
        )
    return _predictions(opened, named_images(words, stdin), top, batch_size, progress)


def _predictions(
    opened: Classifier, files: list[ImageFile], top: int, batch_size: int, progress: Progress
) -> Iterator[Prediction]:
    failed, resized = 0, False
    for first in range(0, len(files), batch_size):
        batch = files[first : first + batch_size]
        read, sizes = _read(opened, batch)
        if not resized and (resized := opened.input_spec.protocol.canvas_size in sizes):
            _say_resized(opened)
        inputs = [image for image in read if isinstance(image, Tensor)]
        failed += len(read) - len(inputs)
        logits = iter(opened.predict(torch.cat(inputs)) if inputs else ())
        predictions = [
            Prediction(file.name, error=image)
            if isinstance(image, str)
            else _prediction(file.name, next(logits), opened.input_spec.names(), top)
            for file, image in zip(batch, read, strict=True)
        ]
        note = f"{failed} not read" if failed else ""
        progress(Step("images", first + len(batch), len(files), note))
        yield from predictions


def _read(
    opened: Classifier, batch: list[ImageFile]
) -> tuple[list[Tensor | str], set[tuple[int, ...]]]:
    """Each image as input ``[1, C, canvas, canvas]``, or why it cannot be; and the sizes they have.

    For classifiers of one channel colours become grey; images that are grey already keep their values.
    Nothing is inverted.
    """
    input_spec, sizes = opened.input_spec, set()

    def read(file: ImageFile) -> Tensor | str:
        try:
            pixels = file.decode()
            sizes.add(tuple(pixels.shape[-2:]))
            return input_spec.protocol.render([pixels], 1.0, channels=input_spec.in_chans)
        # Pillow's readers raise whatever the damage made them trip over.
        except Exception as cause:
            return Fault.of(0, cause).why

    # Decoding leaves Python's lock free.
    with quiet_pillow(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(read, batch)), sizes


def _say_resized(opened: Classifier) -> None:
    """Says once that images of the canvas's own size are not shown as they are."""
    protocol = opened.input_spec.protocol
    height, width = protocol.canvas_size
    resized = protocol.resized_size(height, width)
    if resized != (height, width):
        _LOG.warning(
            "Images of %d×%d pixels, as large as the canvas of %s, are resized to %d×%d and cropped, as in "
            "its own evaluation; with crop_pct 1 (--crop_pct 1) they are shown as they are",
            height, width, opened.name, *resized,
        )  # fmt: skip


def _prediction(path: str, logits: Tensor, names: tuple[str, ...], top: int) -> Prediction:
    if not bool(logits.isfinite().all()):
        return Prediction(path, error="the classifier's answer to it is not finite")
    shares, indices = logits.double().softmax(0).topk(min(top, len(names)))
    best = tuple((names[i], float(p)) for i, p in zip(indices.tolist(), shares, strict=True))
    return Prediction(path, best[0][0], int(indices[0]), best[0][1], best)


def _short(share: float) -> float:
    return float(f"{share:.6g}")
