"""A data set under a scale protocol, split and batched for training and testing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nearfar.data.augmentation import Augmentation, Colours, box_sides, draw_scales
from nearfar.data.dataset import EpochBatches, RenderedImages
from nearfar.data.image_dataset import LabelledImages, channels_of, take_images
from nearfar.data.normalization import Normalisation
from nearfar.data.prefetch import PrefetchLoader
from nearfar.data.soft_labels import SoftLabels
from nearfar.data.sources import load_source
from nearfar.data.spec import DataSpec
from nearfar.data.splits import missing_classes, split_indices, stratified_order
from nearfar.errors import InputError

__all__ = ["ScaleDataModule"]

_LOG = logging.getLogger(__name__)

#: Of how many training images of a stream figures are taken.
_SAMPLED = 10_000


class ScaleDataModule(L.LightningDataModule):
    """The splits of a :class:`DataSpec`, rendered by its protocol.

    The splits are disjoint and stratified; they depend on the spec alone, so a net that was
    trained under a spec is tested under it on images it has not seen. Images are held in memory as
    their source stores them, those of streams are read when needed; training shows them batch by batch,
    made ahead by a thread or by ``workers`` processes.

    Args:
        spec: what to load.
        batch_size: images a batch, over all processes.
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
        data = load_source(spec.source, spec.root, spec.split_seed, spec.max_skipped)
        self.class_names = data.class_names
        self.skipped = data.skipped
        self.edition = data.edition
        self._begin = (0, 0)
        self._soft_labels: SoftLabels | None = None
        self._colours: Colours | None = None
        self._measured: Tensor | None = None
        self._images = data.images
        self._labels = data.labels
        self._data = data
        self.indices = split_indices(spec, data.labels, data.test_from, data.validation_from)
        missing = missing_classes(self.indices, data.labels, data.class_names)
        for split, names in missing.items():
            listed = ", ".join(names[:5]) + " …" * (len(names) > 5)
            _LOG.warning(
                "%s: %d of %d classes have no image for %s: %s; add images of them, or leave them out",
                spec.source, len(names), len(data.class_names), split, listed,
            )  # fmt: skip

    @property
    def in_chans(self) -> int:
        """Channels of the images as they are shown."""
        return self.spec.channels or channels_of(self._images)

    def fingerprint(self) -> dict[str, Any]:
        """What the splits depend on besides the spec, as plain data: equal where the splits are.

        See :meth:`nearfar.data.LabelledImages.fingerprint`.
        """
        fingerprint = self._data.fingerprint()
        if self._soft_labels is None:
            return fingerprint
        return {**fingerprint, "soft_labels": self._soft_labels.digest()}

    def images(self, split: str, scale: float, first: int | None = None, margin: int = 0) -> Tensor:
        """Images of ``train``, ``validation`` or ``test`` at one scale: ``[N, C, S, S]``.

        Args:
            split: which.
            scale: any positive number.
            first: only so many, from the beginning; default: all, which must fit into memory.
            margin: by how many pixels on each side the canvas is larger than the protocol's.
        """
        images = self._images[self.indices[split][:first]]
        return self.spec.protocol.render(images, scale, channels=self.in_chans, margin=margin)

    def learn_from(self, soft_labels: SoftLabels) -> None:
        """Takes a teacher's probabilities in place of the labels of training and validation images.

        Raises:
            InputError: probabilities of another number of images.
        """
        for split, probabilities in soft_labels.probabilities.items():
            if len(probabilities) != len(self.indices[split]):
                raise InputError(
                    f"the soft labels hold probabilities of {len(probabilities)} images for {split}, and "
                    f"there are {len(self.indices[split])}; compute them on these images"
                )
        self._soft_labels = soft_labels
        self.class_names = soft_labels.class_names

    def labels(self, split: str) -> Tensor:
        """The labels of :meth:`images`, ``[N]``; of soft labels, the likeliest."""
        if self._soft_labels is not None and split in self._soft_labels.probabilities:
            return self._soft_labels.probabilities[split].argmax(1)
        return self._labels[self.indices[split]]

    def parts(self, split: str, scale: float, at_once: int) -> Iterator[Tensor]:
        """:meth:`images` of a split, ``at_once`` at a time: no more of them are held."""
        for which in torch.split(self.indices[split], at_once):
            images = self._images[which]
            yield self.spec.protocol.render(images, scale, channels=self.in_chans)

    def stored(self, split: str) -> LabelledImages:
        """A split's images as the source gives them, with their labels."""
        images = take_images(self._images, self.indices[split])
        return LabelledImages(images, self.labels(split), self.class_names)

    def in_order(self, split: str) -> Iterator[Tensor]:
        """All images of a split at their scales of training, some at a time, not augmented.

        Args:
            split: ``train`` or ``validation``.
        """
        return self._dataset(split).in_order()

    def normalisation(self) -> Normalisation | None:
        """What the spec's ``normalize`` asks a net for; ``None`` where it asks for nothing.

        Measured on the training images; on 10,000 of a stream's, the classes in proportion.

        Raises:
            InputError: a channel in which all training images are alike.
        """
        if self.spec.normalize == "none":
            return None
        return Normalisation.of(self._sample())

    def colours(self) -> Colours | None:
        """Along what the spec's ``colour`` moves colours; ``None`` where it moves none.

        Measured on the training images; on 10,000 of a stream's, the classes in proportion.

        Raises:
            InputError: the images do not have 3 channels.
        """
        if not self.spec.colour:
            return None
        if self._colours is None:
            self._colours = Colours.of(self._sample())
        return self._colours

    def _sides(self) -> Tensor | None:
        """How large the things on the training images are, where they exchange their sizes.

        Raises:
            InputError: images of a stream, or all of one size.
        """
        level = self.spec.protocol.level
        if self.spec.exchange_sizes is None or level is None:
            return None
        if self._measured is not None:
            return self._measured
        if not isinstance(self._images, Tensor):
            raise InputError(
                f"exchange_sizes measures every training image before the first epoch, and "
                f"{self.spec.source} is a stream; take random_scale, or a source in memory"
            )
        sides = box_sides(self.in_order("train"), level)
        if len(set(sides[sides > 0].tolist())) < 2:
            raise InputError(
                f"exchange_sizes would change nothing: the things on the {len(sides)} training images are "
                f"all {int(sides.max())} pixels large; take random_scale, or leave it out"
            )
        self._measured = sides
        return sides

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        dataset = self._dataset("train", self._augmentation())
        loader = self._batches(dataset, self.seed)
        assert isinstance(loader.sampler, EpochBatches)
        loader.sampler.begin_at(*self._begin)
        return loader

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        # The sizes of training: at scale 1 alone, a network of other sizes would seem best before it learnt.
        # Exchanged sizes are, together, those that there are already.
        bounds, count = self.spec.random_scale, len(self.indices["validation"])
        factors = None if bounds is None else draw_scales(count, *bounds, self.seed, epoch=0)
        return self._batches(self._dataset("validation", factors=factors))

    def begin_at(self, epoch: int, batch: int) -> None:
        """Training leaves out the first batches of one epoch: they were shown before."""
        self._begin = (epoch, batch)

    def update_size(self, batch: int, batches: int) -> int:
        """Images of all processes in the update of the weights that a training batch belongs to.

        Args:
            batch: the batch's number in its epoch, from 0.
            batches: how many make an update; the last of an epoch has what is left.
        """
        images = self.batch_size * batches
        start = batch // batches * images
        return min(images, len(self.indices["train"]) - start)

    def describe_batch(self, epoch: int, batch: int) -> dict[str, Any]:
        """Which images a training batch of all processes held, and whether their values are finite numbers.

        Args:
            epoch, batch: from 0.

        Returns:
            ``images``: their indices in the source; ``images_not_finite``: of those with such values;
            ``reason``: in words.
        """
        dataset = self._dataset("train", self._augmentation())
        order = EpochBatches(len(dataset), self.batch_size, self.seed).order(epoch)
        at = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        images = dataset[epoch, at][0].flatten(1)
        odd = [i for i, image in zip(at, images, strict=True) if not bool(image.isfinite().all())]
        which = self.indices["train"]
        reason = (
            f"{len(odd)} of its {len(at)} images hold numbers that are not finite"
            if odd
            else "its images are finite numbers, so that training diverged"
        )
        return {
            "images": which[at].tolist(),
            "images_not_finite": which[odd].tolist(),
            "reason": reason,
        }

    def _sample(self) -> Iterator[Tensor]:
        """Training images that figures are taken of, not augmented, some at a time."""
        labels = self.labels("train")
        # Every run, and every process of it, would decode a whole stream once before it begins.
        if isinstance(self._images, Tensor) or len(labels) <= _SAMPLED:
            return self.in_order("train")
        return self._dataset("train").in_order(stratified_order(labels)[:_SAMPLED].sort().values)

    def _augmentation(self) -> Augmentation:
        spec = self.spec
        return Augmentation(
            spec.pad or 0,
            spec.augment == "views",
            spec.random_scale,
            spec.exchange_sizes,
            self._sides(),
            spec.warp,
            spec.colour,
            self.colours(),
        )

    def _dataset(
        self,
        split: str,
        augmentation: Augmentation = Augmentation(),
        factors: Tensor | None = None,
    ) -> RenderedImages:
        """Every image of a split at one of the training scales, times a factor of its own."""
        which, labels = self.indices[split], self.labels(split)
        if self._soft_labels is not None and split == "train":
            labels = self._soft_labels.probabilities[split]
        protocol, channels = self.spec.protocol, self.in_chans
        return RenderedImages(
            self._images, labels, which, protocol, self.seed, augmentation, channels, factors
        )

    def _batches(
        self, dataset: RenderedImages, seed: int | None = None
    ) -> DataLoader[tuple[Tensor, Tensor]]:
        process, processes = 0, 1
        if self.trainer is not None:
            process, processes = self.trainer.global_rank, self.trainer.world_size
        # The sampler hands out whole batches of indices: one slice of a tensor in memory, where a
        # list of single images would have to be put together again.
        batches = EpochBatches(len(dataset), self.batch_size, seed, process, processes)
        workers = self.spec.workers
        return PrefetchLoader(
            dataset,
            sampler=batches,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
