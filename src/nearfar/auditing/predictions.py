"""One pass over the images: every classifier's predictions for each of them at every scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from nearfar.auditing.accuracy import CurveRecorder, ScaleCurve
from nearfar.auditing.audited_images import AuditedImages
from nearfar.auditing.audited_models import AuditedModel
from nearfar.data.preprocess import Images

__all__ = ["predict_all"]


def predict_all(
    audited_models: Sequence[AuditedModel],
    images: AuditedImages,
    scales: tuple[float, ...],
    batch_size: int,
    answered: Callable[[int, str], None] = lambda count, note: None,
) -> dict[str, ScaleCurve]:
    """Predicts the class of each image at every scale, with every model.

    A batch goes through all models at all scales while the next one is read. So two batches of images are in
    memory at a time, however many images there are; what grows with their number are the predictions, 13
    bytes each.

    Args:
        audited_models: which models.
        images: which images.
        scales: at which scales.
        batch_size: images at a time.
        answered: called with how many predictions were made, and a figure worth seeing.

    Returns:
        For each model its predictions, with what the registered figures measure.
    """
    recorders = {
        model.name: CurveRecorder(scales, images.labels, model.classifier.input_spec.num_classes)
        for model in audited_models
    }
    one = min(range(len(scales)), key=lambda k: abs(scales[k] - 1))
    for at, decoded in _batches(images, batch_size):
        start, stop = int(at[0]), int(at[-1]) + 1
        for model in audited_models:
            recorder = recorders[model.name]
            for row, scale in enumerate(scales):
                recorder.add(row, start, model.classifier.predict(model.show(decoded, scale)))
            share = recorder.accuracy(one, stop)
            answered(
                len(at) * len(scales),
                f"{model.name}: {100 * share:.0f} % right at {scales[one]:g}×",
            )
    return {name: recorder.curve() for name, recorder in recorders.items()}


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
