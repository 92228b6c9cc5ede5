"""Images as a net is shown them, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, Dataset, Sampler

from nearfar.data.augment import crop_flip, draw_crop_flip
from nearfar.data.protocol import ScaleProtocol

__all__ = ["EpochBatches", "ShownImages"]

#: Up to this many bytes, images are rendered once and held; more are rendered batch by batch.
HOLD = 256 * 2**20
_AT_ONCE = 512

Wanted = tuple[int, list[int]]


class EpochBatches(Sampler[Wanted]):
    """Whole batches of indices, each with the number of its epoch, which Lightning sets.

    The epoch travels with the indices because what a worker process holds is a copy.
    """

    def __init__(self, batches: BatchSampler) -> None:
        self.batches = batches
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the beginning of each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Wanted]:
        return ((self.epoch, indices) for indices in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class ShownImages(Dataset[tuple[Tensor, Tensor]]):
    """Each image of a split at one of the training scales, with its label.

    An item is a whole batch: ``(epoch, indices)`` → ``[B, C, S, S]`` and ``[B]``.

    Args:
        images: ``[M, C, h, w]`` as the source stores them; they are not copied.
        labels: ``[N]``, of the split.
        which: ``[N]``, where the split's images are among ``images``.
        protocol: canvas and training scales.
        seed: which image is shown at which scale, and the shifts of each epoch.
        pad: the shift of random crops in pixels; 0 shows images as they are.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        which: Tensor,
        protocol: ScaleProtocol,
        seed: int,
        pad: int = 0,
    ) -> None:
        self.labels = labels
        self.protocol = protocol
        self.seed = seed
        self.pad = pad
        draw = torch.Generator().manual_seed(seed)
        self.drawn = torch.randint(len(protocol.train_scales), (len(labels),), generator=draw)
        self._images, self._which = images, which
        self._epoch, self._moves = -1, (torch.empty(0), torch.empty(0))
        self._held: Tensor | None = None
        bytes_shown = 4 * len(labels) * images.shape[1] * protocol.canvas**2
        if bytes_shown <= HOLD:
            self._held = self.plain(torch.arange(len(labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, wanted: Wanted) -> tuple[Tensor, Tensor]:
        epoch, indices = wanted
        at = torch.as_tensor(indices)
        shown = self.plain(at)
        if self.pad:
            if epoch != self._epoch:
                self._epoch = epoch
                self._moves = draw_crop_flip(len(self), self.pad, self.seed, epoch)
            starts, flips = self._moves
            shown = crop_flip(shown, starts[at], flips[at], self.pad)
        return shown, self.labels[at]

    def plain(self, at: Tensor) -> Tensor:
        """Images by their indices, at their scales, not augmented."""
        if self._held is not None:
            return self._held[at]
        scales = self.protocol.train_scales
        if len(scales) == 1:
            return self.protocol.render(self._images[self._which[at]], scales[0])
        side = self.protocol.canvas
        shown = torch.empty(len(at), self._images.shape[1], side, side)
        for i, scale in enumerate(scales):
            here = self.drawn[at] == i
            shown[here] = self.protocol.render(self._images[self._which[at[here]]], scale)
        return shown

    def in_order(self) -> Iterator[Tensor]:
        """All images, some at a time, not augmented."""
        return (self.plain(at) for at in torch.split(torch.arange(len(self)), _AT_ONCE))
