"""SoftLabels: what a teacher says of images, in place of labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nearfar.errors import InputError

__all__ = ["SoftLabels"]


@dataclass(frozen=True)
class SoftLabels:
    """A teacher's answers to the images of each split.

    Args:
        shares: for ``train`` and ``validation``, ``[N, K]``: each image's shares in the classes, which
            add up to 1.
        class_names: what the K numbers stand for.

    Raises:
        InputError: a split without answers, or not one number a class.
    """

    shares: Mapping[str, Tensor]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        missing = {"train", "validation"} - self.shares.keys()
        wrong = [s for s, v in self.shares.items() if v.shape[1:] != (len(self.class_names),)]
        if missing or wrong:
            raise InputError(
                f"a soft_labels needs [N, {len(self.class_names)}] shares for train and validation, got "
                + ", ".join(f"{s}: {tuple(v.shape)}" for s, v in self.shares.items())
            )

    def digest(self) -> str:
        """Tells one soft_labels from another."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for name in sorted(self.shares):
            digest.update(self.shares[name].float().contiguous().numpy().tobytes())
        return digest.hexdigest()
