"""What can be set about a conversion besides its method and its images."""

from __future__ import annotations

from dataclasses import dataclass, field

from nearfar.errors import InputError
from nearfar.training import FitSpec

__all__ = ["FINETUNE", "CheckSpec", "FinetuneSpec"]

#: The short training after a conversion.
FINETUNE = FitSpec(epochs=10, batch_size=64, lr=0.001, keep="last")


@dataclass(frozen=True)
class FinetuneSpec:
    """The training after a conversion.

    Args:
        fit: how; a short training by default.
        distill: share of the original's predictions in what is taught, from 0 (labels alone) to 1. Default:
            0 with labels, 1 without.
        seed: of the training.

    Raises:
        InputError: a share outside 0 to 1, or a ``fit`` that would draw new weights.
    """

    fit: FitSpec = field(default_factory=lambda: FINETUNE)
    distill: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fit.init != "default":
            raise InputError(
                f"fit.init={self.fit.init!r} would draw new weights in place of the trained ones; leave it "
                f"out"
            )
        if self.distill is not None and not 0 <= self.distill <= 1:
            raise InputError(f"distill is a share from 0 to 1, got {self.distill}")


@dataclass(frozen=True)
class CheckSpec:
    """How the original and the converted network are compared.

    Args:
        max_loss: how much accuracy (without labels: agreement with the original) at scale 1 may be lost, as
            a fraction.
        images: how many images to compare on, at most.

    Raises:
        InputError: a fraction outside 0 to 1, or no image.
    """

    max_loss: float = 0.01
    images: int = 2000

    def __post_init__(self) -> None:
        if not 0 <= self.max_loss <= 1 or self.images < 1:
            raise InputError(
                f"max_loss is a fraction from 0 to 1, and at least 1 image is compared, got "
                f"max_loss={self.max_loss} and {self.images} images"
            )
