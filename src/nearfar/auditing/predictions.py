"""One pass over the images: every classifier's predictions for each of them at every point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from nearfar.auditing.accuracy import CurveRecorder, ScaleCurve
from nearfar.auditing.audited_images import AuditedImages
from nearfar.auditing.audited_models import AuditedModel
from nearfar.auditing.axes import AuditAxis, AuditPoints
from nearfar.data.preprocess import Images

__all__ = ["predict_all"]


def predict_all(
    audited_models: Sequence[AuditedModel],
    images: AuditedImages,
    axis: AuditAxis,
    points: AuditPoints,
    batch_size: int,
    answered: Callable[[int, str], None] = lambda count, note: None,
) -> dict[str, ScaleCurve]:
    """Predicts the class of each image at every point of an axis, with every model.

    A batch goes through all models at all points while the next one is read. So two batches of images are in
    memory at a time, however many images there are; what grows with their number are the predictions, 13
    bytes each.

    Args:
        audited_models: which models.
        images: which images.
        axis: what changes from point to point.
        points: at which points.
        batch_size: images at a time.
        answered: called with how many predictions were made, and a figure worth seeing.

    Returns:
        For each model its predictions, with what the registered figures measure.
    """
    recorders = {
        model.name: CurveRecorder(
            points.asked_at, images.labels, model.classifier.input_spec.num_classes
        )
        for model in audited_models
    }
    reference = points.asked_at.index(points.reference)
    for at, decoded in _batches(images, batch_size):
        start, stop = int(at[0]), int(at[-1]) + 1
        for row, point in enumerate(points.asked_at):
            prepared = axis.prepare(decoded, point)
            for model in audited_models:
                classifier = axis.model_at(model, point).classifier
                batch = axis.show(model, prepared, point)
                recorders[model.name].add(row, start, classifier.predict(batch))
            del prepared
        for model in audited_models:
            share = 100 * recorders[model.name].accuracy(reference, stop)
            where = (
                "" if points.members is not None else f" at {points.words.text(points.reference)}"
            )
            answered(len(at) * len(points.asked_at), f"{model.name}: {share:.0f} % right{where}")
    return {name: points.curve(recorder.curve()) for name, recorder in recorders.items()}


def _batches(images: AuditedImages, batch_size: int) -> Iterator[tuple[Tensor, Images]]:
    """Batches of indices with their images, each read while the one before is asked about."""
    parts = list(images.batches(torch.arange(len(images)), batch_size))
    pool = ThreadPoolExecutor(1, thread_name_prefix="reading")
    try:
        ahead = pool.submit(images.read, parts[0])
        for at, after in zip(parts, [*parts[1:], None], strict=True):
            read = ahead.result()
            if after is not None:
                ahead = pool.submit(images.read, after)
            yield at, read
            del read
    finally:  # an interruption does not wait for what nobody will see
        pool.shutdown(wait=True, cancel_futures=True)
