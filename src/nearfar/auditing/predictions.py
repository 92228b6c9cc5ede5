"""One pass over the images: every classifier's answer to each of them at every scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.audited_images import AuditedImages
from nearfar.auditing.audited_models import AuditedModel
from nearfar.data.preprocess import Images

__all__ = ["predict_all"]

#: In the place of a class, where a model answers with numbers that are not finite: right for no label.
NO_ANSWER = -1
_FIVE = 5


def predict_all(
    audited_models: Sequence[AuditedModel],
    images: AuditedImages,
    scales: tuple[float, ...],
    batch_size: int,
    answered: Callable[[int, str], None] = lambda count, note: None,
) -> dict[str, ScaleCurve]:
    """Asks every classifier about each image at every scale.

    A batch is shown at all scales to all classifiers before the next takes its place; meanwhile the next is
    read. So of the images two batches are in memory at a time, however many there are; what
    grows with their number are the answers, 13 bytes each.

    Args:
        audited_models: who is asked.
        images: about what.
        scales: at which scales.
        batch_size: images at a time.
        answered: called with how many answers came in, and a figure worth seeing.

    Returns:
        Answers by name, with their confidence, and with whether the label is among the five likeliest
        where there are more than five classes.
    """
    shape = (len(scales), len(images))
    predictions = {e.name: torch.empty(shape, dtype=torch.int64) for e in audited_models}
    confidence = {e.name: torch.empty(shape) for e in audited_models}
    top5 = {
        e.name: torch.empty(shape, dtype=torch.bool)
        for e in audited_models
        if e.classifier.input_spec.num_classes > _FIVE
    }
    one = min(range(len(scales)), key=lambda k: abs(scales[k] - 1))
    for at, read in _batches(images, batch_size):
        rows = slice(int(at[0]), int(at[-1]) + 1)
        labels = images.labels[at]
        for model in audited_models:
            name = model.name
            for k, scale in enumerate(scales):
                logits = model.classifier.predict(model.show(read, scale))
                best, predicted = logits.max(dim=1)
                predicted[~logits.isfinite().all(dim=1)] = NO_ANSWER
                predictions[name][k, rows] = predicted
                confidence[name][k, rows] = (best - logits.logsumexp(dim=1)).exp()
                if name in top5:
                    likely = logits.topk(_FIVE, dim=1).indices
                    is_likely = (likely == labels[:, None]).any(dim=1)
                    top5[name][k, rows] = is_likely & (predicted != NO_ANSWER)
            correct = predictions[name][one, : rows.stop] == images.labels[: rows.stop]
            share = int(correct.sum()) / len(correct)
            answered(
                len(at) * len(scales), f"{name}: {100 * share:.0f} % right at {scales[one]:g}×"
            )
    return {
        name: ScaleCurve(scales, predicted, images.labels, confidence[name], top5.get(name))
        for name, predicted in predictions.items()
    }


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
