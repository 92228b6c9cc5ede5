"""What a staged backbone is: a stem, then stages that each see a coarser map."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn

__all__ = ["StagedBackbone"]


@runtime_checkable
class StagedBackbone(Protocol):
    """A network whose features are ``stages[-1](… stages[0](stem(x)))``.

    Attributes:
        stem: from the image to the first stage's input (may be ``nn.Identity``).
        stages: the stages, in order; each from the second on halves the map once.
        stage_channels: channels that leave each stage.
        pool: kind of the global pooling before the classifier, ``avg`` or ``max``.
    """

    stem: nn.Module
    stages: nn.ModuleList
    stage_channels: tuple[int, ...]
    pool: str
