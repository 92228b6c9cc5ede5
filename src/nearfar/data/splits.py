"""Which images are for training, which for validation, which for testing."""

from __future__ import annotations

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from nearfar.data.spec import DataSpec
from nearfar.errors import InputError

__all__ = ["split_indices", "stratified_order"]


def split_indices(
    spec: DataSpec, labels: Tensor, test_from: int | None, validation_from: int | None = None
) -> dict[str, Tensor]:
    """Indices of the ``train``, ``validation`` and ``test`` images, disjoint, ascending.

    Training images are drawn first, so that they do not depend on how many test images are asked
    for: an audit that looks at fewer of them still looks at none that was trained on.

    Args:
        spec: sizes, seed, and whether the source's own test part is kept.
        labels: ``[N]``; every split gets all classes in equal proportion.
        test_from: where the source's official test part begins, if it has one.
        validation_from: where its official validation part begins, if it has one; then ``split_seed``
            has chosen the fold already, and each split comes from its own part.

    Raises:
        InputError: more images asked for than there are, fewer than one a class, or an official
            split where the source has none.
    """
    spec = spec.explicit()
    if validation_from is not None:
        assert test_from is not None, "a source with a validation part has a test part"
        return _official_parts(spec, labels, validation_from, test_from)
    everything = torch.arange(len(labels))
    classes = len(torch.unique(labels))
    # Where explicit() could not look at the files, the part itself decides.
    split = spec.split or ("seed" if test_from is None else "official")
    if split == "seed":
        pool, held_out, reserved = everything, None, max(classes, len(labels) // 5)
    elif test_from is None:
        raise InputError(
            f"{spec.source} has no official test part; take split='seed'"
            + (", or put test images into a sub-folder test" if spec.source == "folder" else "")
        )
    else:
        pool, held_out, reserved = everything[:test_from], everything[test_from:], 0
    validation = spec.validation or max(classes, len(pool) // 10)
    train = spec.train or len(pool) - validation - reserved
    remaining = len(pool) - train - validation
    test_pool_size = remaining if held_out is None else len(held_out)
    if train < 1 or remaining < 0 or test_pool_size < 1 or spec.test > test_pool_size:
        official = "" if held_out is None else f" and {len(held_out)} official test images"
        raise InputError(
            f"{spec.source} has {len(pool)} images{official}, too few for train={spec.train}, "
            f"validation={spec.validation} and test={spec.test or 'at least 1'}; ask for fewer, or for 0, "
            f"which takes a share of what there is"
        )
    indices: dict[str, Tensor] = {}
    for name, size in (("train", train), ("validation", validation)):
        indices[name], pool = _draw(name, size, pool, labels, spec.split_seed)
    pool = pool if held_out is None else held_out
    indices["test"], _ = _draw("test", spec.test or test_pool_size, pool, labels, spec.split_seed)
    return indices


def stratified_order(labels: Tensor, seed: int = 0) -> Tensor:
    """An order of images of which every beginning holds the classes in proportion, to an image.

    Args:
        labels: ``[N]``.
        seed: which images of a class come first, and which class where several are due.

    Returns:
        ``[N]`` indices.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    shuffled_labels = labels[shuffled]
    # The k-th of a class's n images is due when (k + 1/2) / n of all are there.
    by_class = shuffled_labels.argsort(stable=True)
    sizes = torch.unique_consecutive(shuffled_labels[by_class], return_counts=True)[1]
    begins = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    rank = torch.arange(len(labels)) - begins
    due = torch.empty(len(labels), dtype=torch.float64)
    due[by_class] = (rank.double() + 0.5) / sizes.repeat_interleave(sizes)
    return shuffled[due.argsort(stable=True)]


def _official_parts(
    spec: DataSpec, labels: Tensor, validation_from: int, test_from: int
) -> dict[str, Tensor]:
    """Of a source whose three parts are published: all of each, or as many of it as asked for."""
    if spec.split != "official":
        raise InputError(
            f"{spec.source} comes split into training, validation and test images, and split_seed names "
            f"the fold; take split='official'"
        )
    train, validation, test = torch.arange(len(labels)).tensor_split((validation_from, test_from))
    indices = {}
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        count = getattr(spec, name) or len(part)
        if count > len(part):
            raise InputError(
                f"{spec.source} has {len(part)} images for {name}, got {name}={count}; ask for fewer, or "
                f"for 0, which takes all"
            )
        indices[name], _ = _draw(name, count, part, labels, spec.split_seed)
    return indices


def _draw(name: str, size: int, pool: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Some of a pool, stratified, and what is left of it."""
    if size == len(pool):
        return pool.sort().values, pool[:0]
    try:
        chosen, rest = train_test_split(
            pool, train_size=size, random_state=seed, stratify=labels[pool]
        )
    except ValueError as cause:
        raise InputError(
            f"cannot split {size} images for {name} so that every class is there: {cause}; "
            f"ask for at least 1 a class, leaving at least 1 a class"
        ) from cause
    return torch.as_tensor(chosen).sort().values, torch.as_tensor(rest)
