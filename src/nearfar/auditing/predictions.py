"""One pass over the images: every classifier's predictions for each of them at every point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from nearfar.auditing.accuracy import CurveRecorder, ScaleCurve
from nearfar.auditing.audited_images import AuditedImages
from nearfar.auditing.audited_models import AuditedModel
from nearfar.auditing.axes import AuditAxis, AuditPoints
from nearfar.auditing.finished_batches import FinishedBatches, batches_key
from nearfar.data.preprocess import Images
from nearfar.peers import ALONE, Peers

__all__ = ["predict_all"]


def predict_all(
    audited_models: Sequence[AuditedModel],
    images: AuditedImages,
    axis: AuditAxis,
    points: AuditPoints,
    batch_size: int,
    answered: Callable[[int, str], None] = lambda count, note: None,
    peers: Peers = ALONE,
    folder: Path | None = None,
    settings: object = None,
) -> dict[str, ScaleCurve]:
    """Predicts the class of each image at every point of an axis, with every model.

    A batch goes through all models at all points while the next one is read. So two batches of images are in
    memory at a time, however many images there are; what grows with their number are the predictions, 13
    bytes each. Several processes take every so many-th batch; batches are the same however many there are,
    and so are the answers, to the bit on processors of one kind.

    Args:
        audited_models: which models.
        images: which images.
        axis: what changes from point to point.
        points: at which points.
        batch_size: images at a time.
        answered: called with how many predictions were made, and a figure worth seeing.
        peers: the processes that share this work.
        folder: where answers lie until all are there, so that a new start goes on from them
            (:func:`~nearfar.auditing.finished_batches.remove_batches` takes them away).
        settings: what answers depend on besides models, images and points; its ``repr`` counts.

    Returns:
        For each model its predictions, with what the registered figures measure; in every process.

    Raises:
        InputError: another process has ended, or does not answer.
    """
    work = _Predicting(audited_models, images, axis, points, batch_size)
    files = FinishedBatches(folder, peers.rank, work.key(settings) if folder else "")
    stored = files.load(work.recorders, work.batches)
    done_before: Tensor = peers.of_first(lambda: stored)
    for count, note in work.fast_forwarded(done_before):
        answered(count, note)
    done = stored & done_before if peers.rank == 0 else torch.zeros_like(done_before)
    todo = peers.share((~done_before).nonzero().flatten().tolist())
    for number in work.answer(todo):
        done[number] = True
        files.save(work.recorders, done)
        for count, note in work.progress(number, done):
            answered(count * peers.world_size, note)
    if todo and peers.world_size > 1:
        files.save(work.recorders, done, last=True)  # the others may be lost before they are ready
    work.exchange(peers, done)
    return work.curves()


class _Predicting:
    """The predictions of all models, as they come."""

    def __init__(
        self,
        audited_models: Sequence[AuditedModel],
        images: AuditedImages,
        axis: AuditAxis,
        points: AuditPoints,
        batch_size: int,
    ) -> None:
        self._models, self._images, self._axis, self._points = audited_models, images, axis, points
        self.batches = list(images.batches(torch.arange(len(images)), batch_size))
        self.recorders = {
            model.name: CurveRecorder(
                points.asked_at, images.labels, model.classifier.input_spec.num_classes
            )
            for model in audited_models
        }

    def key(self, settings: object) -> str:
        """What the answers depend on."""
        point = self._points.reference
        first = self._axis.prepare(self._images.read(self.batches[0][:2]), point)
        logits = [
            self._axis.model_at(model, point).classifier.predict(
                self._axis.show(model, first, point)
            )
            for model in self._models
        ]
        columns = [tuple(recorder.records) for recorder in self.recorders.values()]
        all_settings = (
            *(settings, self._points.asked_at, columns),
            *([model.name for model in self._models], [model.protocol for model in self._models]),
            *(self._images.source, self._images.which.tolist(), self._images.labels.tolist()),
            [len(batch) for batch in self.batches],
        )
        return batches_key(all_settings, logits)

    def answer(self, numbers: Sequence[int]) -> Iterator[int]:
        """Asks about these batches; each is named when it is done."""
        asked_at, axis = self._points.asked_at, self._axis
        for number, decoded in self._read(numbers):
            start = int(self.batches[number][0])
            for row, point in enumerate(asked_at):
                prepared = axis.prepare(decoded, point)
                for model in self._models:
                    classifier = axis.model_at(model, point).classifier
                    batch = axis.show(model, prepared, point)
                    self.recorders[model.name].add(row, start, classifier.predict(batch))
                del prepared
            yield number

    def progress(self, number: int, done: Tensor) -> Iterator[tuple[int, str]]:
        """How many predictions a batch took, a model at a time, with the share of right answers so far."""
        yield from self._reports(len(self.batches[number]), self._answered(done))

    def fast_forwarded(self, done: Tensor) -> Iterator[tuple[int, str]]:
        """:meth:`progress` of what an earlier start has answered."""
        images = self._answered(done)
        if images.any():
            yield from self._reports(int(images.sum()), images)

    def _reports(self, images: int, answered: Tensor) -> Iterator[tuple[int, str]]:
        points = self._points
        reference = points.asked_at.index(points.reference)
        where = "" if points.members is not None else f" at {points.words.text(points.reference)}"
        for name, recorder in self.recorders.items():
            share = 100 * recorder.accuracy(reference, answered)
            yield images * len(points.asked_at), f"{name}: {share:.0f} % right{where}"

    def _answered(self, done: Tensor) -> Tensor:
        """``[N]``: the images of these batches."""
        sizes = torch.tensor([len(batch) for batch in self.batches])
        return done.repeat_interleave(sizes)

    def exchange(self, peers: Peers, done: Tensor) -> None:
        """Every process gets what the others have answered."""
        if peers.world_size == 1:
            return
        others = ~self._answered(done)
        for recorder in self.recorders.values():
            for tensor in recorder.records.values():
                tensor[:, others] = 0
                tensor.copy_(peers.add_up(tensor))

    def curves(self) -> dict[str, ScaleCurve]:
        """What was recorded, by model."""
        points = self._points
        return {name: points.curve(recorder.curve()) for name, recorder in self.recorders.items()}

    def _read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Images]]:
        """Batches with their images, each read while the one before is asked about."""
        if not numbers:
            return
        pool = ThreadPoolExecutor(1, thread_name_prefix="reading")
        try:
            ahead = pool.submit(self._images.read, self.batches[numbers[0]])
            for number, after in zip(numbers, [*numbers[1:], None], strict=True):
                decoded = ahead.result()
                if after is not None:
                    ahead = pool.submit(self._images.read, self.batches[after])
                yield number, decoded
                del decoded
        finally:  # an interruption does not wait for what nobody will see
            pool.shutdown(wait=True, cancel_futures=True)
