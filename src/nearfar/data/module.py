"""A data set under a scale protocol, split and batched for training and testing."""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from nearfar.data.normalise import Normalisation
from nearfar.data.shown import EpochBatches, ShownImages
from nearfar.data.sources import load_source
from nearfar.data.spec import DataSpec
from nearfar.data.splits import split_indices
from nearfar.errors import InputError

__all__ = ["ScaleData"]


class ScaleData(L.LightningDataModule):
    """The splits of a :class:`DataSpec`, rendered by its protocol.

    The splits are disjoint and stratified; they depend on the spec alone, so a net that was
    trained under a spec is tested under it on images it has not seen. All images are held in memory
    as their source stores them; training shows them batch by batch.

    Args:
        spec: what to load.
        batch_size: images a batch.
        seed: order of the training images, their augmentation and, with several training scales,
            which image is shown at which.

    Raises:
        InputError: unknown source, missing files, or more images asked for than there are.
    """

    def __init__(self, spec: DataSpec, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.spec = spec = spec.explicit()
        self.batch_size = batch_size
        self.seed = seed
        data = load_source(spec.source, spec.root, spec.size)
        self.class_names = data.class_names
        self._images = data.images
        self._labels = data.labels
        self.indices = split_indices(spec, data.labels, data.test_from)

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return int(self._images.shape[1])

    def images(self, split: str, scale: float, first: int | None = None) -> Tensor:
        """Images of ``train``, ``validation`` or ``test`` at one scale: ``[N, C, S, S]``.

        Args:
            split: which.
            scale: any positive number.
            first: only so many, from the beginning; default: all, which must fit into memory.
        """
        return self.spec.protocol.render(self._images[self.indices[split][:first]], scale)

    def labels(self, split: str) -> Tensor:
        """The labels of :meth:`images`, ``[N]``."""
        return self._labels[self.indices[split]]

    def normalisation(self) -> Normalisation | None:
        """What the spec's ``normalize`` asks a net for; ``None`` where it asks for nothing.

        Raises:
            InputError: a channel in which all training images are alike.
        """
        if self.spec.normalize == "none":
            return None
        return Normalisation.of(self._shown("train").in_order())

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        order = torch.Generator().manual_seed(self.seed)
        shown = self._shown("train", self.spec.pad or 0)
        return self._batches(shown, RandomSampler(shown, generator=order))

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        shown = self._shown("validation")
        return self._batches(shown, SequentialSampler(shown))

    def _shown(self, split: str, pad: int = 0) -> ShownImages:
        """Every image of a split at one of the training scales."""
        which, labels = self.indices[split], self.labels(split)
        return ShownImages(self._images, labels, which, self.spec.protocol, self.seed, pad)

    def _batches(
        self, shown: ShownImages, order: RandomSampler | SequentialSampler
    ) -> DataLoader[tuple[Tensor, Tensor]]:
        # The sampler hands out whole batches of indices: one slice of a tensor in memory, where a
        # list of single images would have to be put together again.
        batches = EpochBatches(BatchSampler(order, self.batch_size, drop_last=False))
        return DataLoader(shown, sampler=batches, batch_size=None)
