"""Which images are for training, which for validation, which for testing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from nearfar.data.spec import DataSpec
from nearfar.errors import InputError

__all__ = ["missing_classes", "split_indices", "stratified_order"]


def split_indices(
    spec: DataSpec, labels: Tensor, test_from: int | None, validation_from: int | None = None
) -> dict[str, Tensor]:
    """Indices of the ``train``, ``validation`` and ``test`` images, disjoint, ascending.

    Training images are drawn first, so that they do not depend on how many test images are asked
    for: an audit that looks at fewer of them still looks at none that was trained on.

    Every split gets all classes in proportion. A class too rare for that has its first image in training, its
    second in the test and its third in validation, as far as it has them; :func:`missing_classes` says
    where one is missing.

    Args:
        spec: sizes, seed, and whether the source's own test part is kept.
        labels: ``[N]``.
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
    for name, size in (("train", train), ("validation", validation)):
        if size < classes:
            raise InputError(
                f"cannot split {size} images for {name} so that every class is there: {spec.source} has "
                f"{classes} classes; ask for at least {classes}"
            )
    indices = _parts(pool, labels, train, validation, spec.split_seed)
    pool = indices["test"] if held_out is None else held_out
    indices["test"] = _draw("test", spec.test or test_pool_size, pool, labels, spec.split_seed)
    return indices


def missing_classes(
    indices: Mapping[str, Tensor], labels: Tensor, class_names: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Names of the classes of which a split has no image, by split; splits that have all are left out.

    Args:
        indices: of each split's images.
        labels: ``[N]``.
        class_names: of all classes.
    """
    missing = {}
    for split, which in indices.items():
        counts = labels[which].bincount(minlength=len(class_names))
        missing[split] = tuple(class_names[c] for c in (counts == 0).nonzero().flatten().tolist())
    return {split: names for split, names in missing.items() if names}


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
        indices[name] = _draw(name, count, part, labels, spec.split_seed)
    return indices


def _parts(
    pool: Tensor, labels: Tensor, train: int, validation: int, seed: int
) -> dict[str, Tensor]:
    """A pool in three parts: training, validation, and the rest for the test."""
    try:
        training, rest = _stratified(train, pool, labels, seed)
        validating, testing = _stratified(validation, rest, labels, seed)
        parts = {"train": training, "validation": validating, "test": testing}
    except ValueError:  # scikit-learn's, where a class is too rare for it
        return _with_rare_classes(pool, labels, train, validation, seed)
    counts = labels[pool].bincount()
    needed = {"train": 1, "test": 2, "validation": 3}
    for name, part in parts.items():
        present = labels[part].bincount(minlength=len(counts))
        if len(part) and bool(((counts >= needed[name]) & (present == 0)).any()):
            return _with_rare_classes(pool, labels, train, validation, seed)
    return parts


def _with_rare_classes(
    pool: Tensor, labels: Tensor, train: int, validation: int, seed: int
) -> dict[str, Tensor]:
    """Three parts of which each has an image of every class that has one for it."""
    order = stratified_order(labels[pool], seed)
    shuffled = pool[order]
    sizes = {"train": train, "test": len(pool) - train - validation, "validation": validation}
    by_class = labels[shuffled].argsort(stable=True)
    counts = torch.unique_consecutive(labels[shuffled][by_class], return_counts=True)[1]
    rank = torch.empty_like(by_class)
    rank[by_class] = torch.arange(len(pool)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    parts, free, number = {}, torch.ones(len(pool), dtype=torch.bool), 0
    for name, size in sizes.items():
        if size:
            first = (rank == number).nonzero().flatten()[:size]
            parts[name], number = [first], number + 1
            free[first] = False
        else:
            parts[name] = []
    others = free.nonzero().flatten()
    for name, size in sizes.items():
        due = size - sum(map(len, parts[name]))
        parts[name].append(others[:due])
        others = others[due:]
    return {
        name: shuffled[torch.cat(parts[name])].sort().values
        for name in ("train", "validation", "test")
    }


def _draw(name: str, size: int, pool: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Some of a pool, all classes in proportion, and one image at least of each."""
    try:
        return _stratified(size, pool, labels, seed)[0]
    except ValueError as cause:
        classes = len(torch.unique(labels[pool]))
        if size < classes:
            raise InputError(
                f"cannot draw {size} of {len(pool)} images for {name} so that every class is there: there "
                f"are {classes} classes; ask for at least {classes}"
            ) from cause
        return _with_rare_classes(pool, labels, size, 0, seed)["train"]


def _stratified(size: int, pool: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Some of a pool, all classes in proportion, and what is left of it."""
    if size == len(pool):
        return pool.sort().values, pool[:0]
    chosen, rest = train_test_split(pool, train_size=size, random_state=seed, stratify=labels[pool])
    return torch.as_tensor(chosen).sort().values, torch.as_tensor(rest)
