"""SoftLabels: a teacher's probabilities for images, in place of labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nearfar.errors import InputError

__all__ = ["SoftLabels"]


@dataclass(frozen=True)
class SoftLabels:
    """A teacher's probabilities for the images of each split.

    Args:
        probabilities: for ``train`` and ``validation``, ``[N, K]``: each image's probabilities, which add up
            to 1.
        class_names: what the K numbers stand for.

    Raises:
        InputError: a split without probabilities, or not one number a class.
    """

    probabilities: Mapping[str, Tensor]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        missing = {"train", "validation"} - self.probabilities.keys()
        count = len(self.class_names)
        wrong = [s for s, v in self.probabilities.items() if v.shape[1:] != (count,)]
        if missing or wrong:
            raise InputError(
                f"soft labels need [N, {count}] probabilities for train and validation, got "
                + ", ".join(f"{s}: {tuple(v.shape)}" for s, v in self.probabilities.items())
            )

    def digest(self) -> str:
        """Tells one set of soft labels from another."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for name in sorted(self.probabilities):
            digest.update(self.probabilities[name].float().contiguous().numpy().tobytes())
        return digest.hexdigest()
