"""Images as a net is shown them, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from nearfar.data.augmentation import Augmentation, Draws
from nearfar.data.image_dataset import ImageStore, channels_of
from nearfar.data.protocol import ScaleProtocol
from nearfar.data.stored_images import DecodedImages

__all__ = ["EpochBatches", "RenderedImages"]

#: Up to this many bytes, images are rendered once and held; more are rendered batch by batch.
RENDERED_LIMIT = 2**30
#: Images of bytes at scale 1 are held as floating point up to so many bytes, which loads faster.
FLOATING_LIMIT = 2**28
_AT_ONCE = 512

EpochIndices = tuple[int, list[int]]


class EpochBatches(Sampler[EpochIndices]):
    """One process's share of whole batches of indices, each with the number of its epoch.

    The epoch, which Lightning sets, travels with the indices because what a worker process holds is a
    copy. The order of an epoch depends on the seed and the epoch alone, so that a run can be taken up
    anywhere.

    Args:
        count: N, how many images there are.
        batch_size: images a batch, over all processes; the last batch has what is left.
        seed: of the order; ``None`` keeps the images in theirs.
        process: which of the processes this is, from 0.
        processes: among how many each batch is shared out. A process gets images from the front of the
            batch and those that mirror them from its back, so that a batch mixed with its own
            reverse is mixed within each process. Shares of no image are left out.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int | None = None,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.process, self.processes = process, processes
        self.epoch = 0
        self._begin = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the beginning of each epoch."""
        self.epoch = epoch

    def begin_at(self, epoch: int, batch: int) -> None:
        """Leaves out the batches of one epoch that were shown before a run was interrupted."""
        self._begin = (epoch, batch)
        # Worker processes are given their first batches before Lightning sets the epoch.
        self.epoch = epoch

    def order(self, epoch: int) -> list[int]:
        """The order of all images in an epoch."""
        if self.seed is None:
            return list(range(self.count))
        generator = torch.Generator().manual_seed(self.seed)
        # The order of torch's RandomSampler, by which the published tables were trained: one permutation an
        # epoch, and an unused one where the last batch is not full.
        for _ in range(epoch * (2 if self.count % self.batch_size else 1)):
            torch.randperm(self.count, generator=generator)
        return torch.randperm(self.count, generator=generator).tolist()

    def __iter__(self) -> Iterator[EpochIndices]:
        # A generator's body runs when the first batch is asked for: Lightning sets the epoch before.
        order = self.order(self.epoch)
        first = self._begin[1] if self._begin[0] == self.epoch else 0
        for start in range(first * self.batch_size, self.count, self.batch_size):
            share = self._share(order[start : start + self.batch_size])
            if share:
                yield self.epoch, share

    def __len__(self) -> int:
        starts = range(0, self.count, self.batch_size)
        whole = range(self.batch_size)
        return sum(bool(self._share(whole[: self.count - start])) for start in starts)

    def _share(self, batch: Sequence[int]) -> list[int]:
        pairs = (len(batch) + 1) // 2
        low = pairs * self.process // self.processes
        high = pairs * (self.process + 1) // self.processes
        back = batch[max(high, len(batch) - high) : len(batch) - low]
        return [*batch[low:high], *back]


class RenderedImages(Dataset[tuple[Tensor, Tensor]]):
    """Each image of a split at one of the training scales, with its label.

    An item is a whole batch: ``(epoch, indices)`` → ``[B, C, S, S]`` and ``[B]``.

    Args:
        images: M images as the source gives them; they are not copied.
        labels: ``[N]``, of the split; or ``[N, K]``, each image's shares in the classes.
        which: ``[N]``, where the split's images are among ``images``.
        protocol: canvas and training scales.
        seed: which image is shown at which scale, and each epoch's augmentation.
        augmentation: what each epoch changes; by default nothing.
        channels: 1 or 3; default: those of the images.
        factors: ``[N]``, what to multiply each image's scale with, in every epoch alike; default: 1.
    """

    def __init__(
        self,
        images: Tensor | ImageStore,
        labels: Tensor,
        which: Tensor,
        protocol: ScaleProtocol,
        seed: int,
        augmentation: Augmentation = Augmentation(),
        channels: int | None = None,
        factors: Tensor | None = None,
    ) -> None:
        self.labels = labels
        self.protocol = protocol
        self.seed = seed
        self.augmentation = augmentation
        self.scales = protocol.draw(len(labels), seed)
        if factors is not None:
            self.scales = self.scales * factors
        self._images, self._which = images, which
        self._epoch, self._draws = -1, Draws(augmentation)
        self.channels = channels or channels_of(images)
        self._rendered: Tensor | None = None
        in_memory = isinstance(images, Tensor | DecodedImages)
        if in_memory and not augmentation.rescales:
            self._render_once(images)

    def _render_once(self, images: Tensor | ImageStore) -> None:
        """Renders all images now where they fit into memory; many of bytes, at scale 1, remain bytes."""
        height, width = (n + 2 * self.augmentation.margin for n in self.protocol.canvas_size)
        of_bytes = not isinstance(images, Tensor) or images.dtype == torch.uint8
        shape = (len(self), self.channels, height, width)
        size = 4 * math.prod(shape)
        as_bytes = of_bytes and size > FLOATING_LIMIT and bool((self.scales == 1).all())
        if (size // 4 if as_bytes else size) > RENDERED_LIMIT:
            return
        rendered = torch.empty(shape, dtype=torch.uint8 if as_bytes else torch.float32)
        for at in torch.split(torch.arange(len(self)), _AT_ONCE):
            canvases = self._framed(at)
            rendered[at] = canvases.mul(255).round().to(torch.uint8) if as_bytes else canvases
        self._rendered = rendered

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, batch: EpochIndices) -> tuple[Tensor, Tensor]:
        epoch, indices = batch
        at = torch.as_tensor(indices)
        if epoch != self._epoch:
            self._epoch, self._draws = epoch, self.augmentation.draw(len(self), self.seed, epoch)
        if self._draws.factors is None:
            framed = self._framed(at)
        else:
            framed = self._render(at, self.scales[at] * self._draws.factors[at])
        return self._draws.apply(framed, at), self.labels[at]

    def plain(self, at: Tensor) -> Tensor:
        """Images by their indices, at their scales, not augmented."""
        margin = self.augmentation.margin
        height, width = self.protocol.canvas_size
        return self._framed(at)[..., margin : margin + height, margin : margin + width]

    def _framed(self, at: Tensor) -> Tensor:
        """Images at their scales, with the margin that crops need."""
        if self._rendered is None:
            return self._render(at, self.scales[at])
        canvases = self._rendered[at]
        return canvases.float().div_(255) if canvases.dtype == torch.uint8 else canvases

    def _render(self, at: Tensor, scales: Tensor) -> Tensor:
        images, margin = self._images[self._which[at]], self.augmentation.margin
        distinct = sorted(set(scales.tolist()))
        if len(distinct) == 1:
            return self.protocol.render(images, distinct[0], channels=self.channels, margin=margin)
        return self.protocol.render_each(images, scales, channels=self.channels, margin=margin)

    def in_order(self, which: Tensor | None = None) -> Iterator[Tensor]:
        """All images, or those of some indices, some at a time, not augmented."""
        which = torch.arange(len(self)) if which is None else which
        return (self.plain(at) for at in torch.split(which, _AT_ONCE))
