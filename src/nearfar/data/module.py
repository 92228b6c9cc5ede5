"""A data set under a scale protocol, split and batched for training and testing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)

from nearfar.data.protocol import ScaleProtocol
from nearfar.data.sources import load_source
from nearfar.errors import InputError

__all__ = ["DataSpec", "ScaleData"]

_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataSpec:
    """Which images, how they are split, and at which scales they are shown.

    Args:
        source: name of the data set (``nearfar.data.list_sources()``).
        root: folder that holds it; not needed for ``digits``.
        protocol: canvas and scales.
        train: number of training images.
        validation: number of validation images, on which the best epoch is chosen.
        test: number of test images; 0 takes all that are left.
        split_seed: which images go where; every split holds all classes in equal proportion.

    Raises:
        InputError: a negative number, or no training or validation images.
    """

    source: str = "digits"
    root: Path | None = None
    protocol: ScaleProtocol = field(default_factory=ScaleProtocol)
    train: int = 900
    validation: int = 300
    test: int = 0
    split_seed: int = 0

    def __post_init__(self) -> None:
        if self.train < 1 or self.validation < 1 or self.test < 0 or self.split_seed < 0:
            raise InputError(
                f"data needs train >= 1, validation >= 1, test >= 0 and split_seed >= 0, got "
                f"train={self.train}, validation={self.validation}, test={self.test}, "
                f"split_seed={self.split_seed}"
            )


class ScaleData(L.LightningDataModule):
    """The splits of a :class:`DataSpec`, rendered by its protocol.

    The splits are disjoint and stratified; they depend on ``split_seed`` alone, so a net that was
    trained under a spec is tested under it on images it has not seen.

    Args:
        spec: what to load.
        batch_size: images a batch.
        seed: order of the training images and, with several training scales, which image is shown
            at which.

    Raises:
        InputError: unknown source, missing files, or more images asked for than there are.
    """

    def __init__(self, spec: DataSpec, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.spec = spec
        self.batch_size = batch_size
        self.seed = seed
        data = load_source(spec.source, spec.root)
        self.class_names = data.class_names
        self._images = data.images
        self._labels = data.labels
        self.indices = _split(spec, data.labels)

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return int(self._images.shape[1])

    def images(self, split: str, scale: float) -> Tensor:
        """All images of ``train``, ``validation`` or ``test`` at one scale: ``[N, C, S, S]``."""
        return self.spec.protocol.render(self._images[self.indices[split]], scale)

    def labels(self, split: str) -> Tensor:
        """The labels of :meth:`images`, ``[N]``."""
        return self._labels[self.indices[split]]

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        order = torch.Generator().manual_seed(self.seed)
        shown = self._shown("train")
        return self._batches(shown, RandomSampler(shown, generator=order))

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        shown = self._shown("validation")
        return self._batches(shown, SequentialSampler(shown))

    def _shown(self, split: str) -> TensorDataset:
        """Every image of a split at one of the training scales."""
        scales = self.spec.protocol.train_scales
        draw = torch.Generator().manual_seed(self.seed)
        count = len(self.indices[split])
        drawn = torch.randint(len(scales), (count,), generator=draw)
        shown = self.images(split, scales[0])
        for i, scale in enumerate(scales[1:], start=1):
            shown[drawn == i] = self.spec.protocol.render(
                self._images[self.indices[split][drawn == i]], scale
            )
        return TensorDataset(shown, self.labels(split))

    def _batches(
        self, shown: TensorDataset, order: RandomSampler | SequentialSampler
    ) -> DataLoader[tuple[Tensor, ...]]:
        # The sampler hands out whole batches of indices: one slice of a tensor in memory, where a
        # list of single images would have to be put together again.
        batches = BatchSampler(order, self.batch_size, drop_last=False)
        return DataLoader(shown, sampler=batches, batch_size=None)


def _split(spec: DataSpec, labels: Tensor) -> dict[str, Tensor]:
    rest = len(labels) - spec.train - spec.validation
    test = spec.test or rest
    if rest < 1 or test > rest:
        raise InputError(
            f"{spec.source} has {len(labels)} images, too few for train={spec.train}, "
            f"validation={spec.validation} and test={spec.test or 'at least 1'}; ask for fewer"
        )
    sizes = dict(zip(_SPLITS, (spec.train, spec.validation, test), strict=True))
    pool = torch.arange(len(labels))
    indices: dict[str, Tensor] = {}
    for name, size in sizes.items():
        if size == len(pool):
            taken, pool = pool, pool[:0]
        else:
            try:
                taken, pool = train_test_split(
                    pool, train_size=size, random_state=spec.split_seed, stratify=labels[pool]
                )
            except ValueError as cause:
                raise InputError(
                    f"cannot split {size} images for {name} so that every class is there: {cause}; "
                    f"ask for at least 1 a class, leaving at least 1 a class"
                ) from cause
        indices[name] = torch.as_tensor(taken).sort().values
    return indices
