"""MNIST-Scale: digits of many sizes, under the protocol that the published figures share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.datasets import MNIST

from nearfar.data.cache import cached_tensors, checksum
from nearfar.data.image_dataset import LabelledImages
from nearfar.data.sources.mnist import idx_source
from nearfar.data.sources.registry import register_source

__all__ = ["SIZES", "mnist_scale_source"]

#: Training, validation and test images of a fold.
SIZES = (10_000, 2_000, 50_000)
_SMALLEST, _LARGEST = 0.3, 1.0
# Written into the cache file's name: a change of what follows must not meet old files.
_VERSION = 1


@register_source("mnist_scale", folds=True)
def mnist_scale_source(root: Path | None, fold: int) -> LabelledImages:
    """One fold of MNIST-Scale.

    All 70,000 digits of MNIST are one pool. A fold draws 10,000 training, 2,000 validation and
    50,000 test images from it, every class in proportion, and rescales each image by a factor of its
    own, uniform from 0.3 to 1, about the image's centre, with zeros around it. As in the published
    sets the reading is bicubic without antialiasing and rounded to 256 grey levels.

    A fold is made once (seconds) and kept in the cache with a checksum. Fold and pool decide every bit.

    Args:
        root: the folder that holds MNIST; default ``$NEARFAR_DATA``, else ``./data``.
        fold: 0 to 5 are those of the tables; any number of at least 0 is another draw.

    Returns:
        62,000 images: the training part, from ``validation_from`` the validation part, from
        ``test_from`` the test part.

    Raises:
        InputError: MNIST is not there or damaged.

    Limits:
        The publications name protocol and seeds, not the digits' factors; theirs came from other
        generators. So these folds are draws like theirs, not copies.

    Source: K. Sohn and H. Lee 2012; the split and the six draws after R. Ghosh and A. Gupta 2019,
    as SESN (I. Sosnovik et al. 2020), DISCO and later publications took them over.
    """
    pool = idx_source(MNIST)(root)
    images = pool.images
    assert isinstance(images, Tensor), "idx files are held in memory"
    key = checksum({"images": images, "labels": pool.labels})[:12]
    tensors = cached_tensors(
        f"mnist_scale-{_VERSION}-{key}-{fold}", lambda: _make(images, pool.labels, fold)
    )
    train, validation, _ = SIZES
    return LabelledImages(
        tensors["images"],
        tensors["labels"],
        pool.class_names,
        test_from=train + validation,
        validation_from=train,
    )


def _make(images: Tensor, targets: Tensor, fold: int) -> dict[str, Tensor]:
    labels = targets.numpy()
    train, validation, test = SIZES
    first, third = train_test_split(
        np.arange(len(labels)),
        train_size=train + validation,
        test_size=test,
        stratify=labels,
        random_state=fold,
    )
    first, second = train_test_split(
        first, train_size=train, test_size=validation, stratify=labels[first], random_state=fold
    )
    which = np.concatenate([first, second, third])
    scales = np.random.default_rng(fold).uniform(_SMALLEST, _LARGEST, len(which))
    rescaled = np.stack(
        [
            _rescaled(image, scale)
            for image, scale in zip(images[which, 0].numpy(), scales, strict=True)
        ]
    )
    return {
        "images": torch.from_numpy(rescaled).unsqueeze(1),
        "labels": torch.from_numpy(labels[which]),
        "scales": torch.from_numpy(scales),
    }


def _rescaled(image: np.ndarray, scale: float) -> np.ndarray:
    """About the centre, on the same canvas, read by Pillow as the published sets were."""
    height, width = image.shape
    # Where in the image an output pixel is read: (x - w/2) / scale + w/2.
    inverse = (
        1 / scale,
        0,
        width / 2 * (1 - 1 / scale),
        0,
        1 / scale,
        height / 2 * (1 - 1 / scale),
    )
    read = Image.fromarray(image).transform(
        (width, height), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC
    )
    return np.asarray(read)
