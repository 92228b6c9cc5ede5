"""Networks made of a stem, stages and a head; the interface that timm's users expect of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeGuard

from timm.models._features import feature_take_indices
from torch import Tensor, nn

from nearfar.errors import InputError

__all__ = ["HeadedNet", "StagedBackbone", "StagedNet", "is_staged"]


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


def is_staged(network: nn.Module) -> TypeGuard[StagedBackbone]:
    """Whether a network has what a :class:`StagedBackbone` has.

    From Python 3.12 on ``isinstance`` overlooks attributes that are modules, which PyTorch keeps elsewhere.
    """
    return all(hasattr(network, name) for name in StagedBackbone.__annotations__)


class HeadedNet(nn.Module):
    """Features, then a head with a classifier that can be replaced.

    Attributes:
        head: takes the features, and ``pre_logits=True``; has ``fc`` and ``reset(num_classes, pool)``.
        num_classes: numbers the classifier gives; 0 where it was left out.
        num_features: channels of the features.
        feature_info: channels, reduction and place of each stage's maps, for timm.
    """

    head: nn.Module
    num_classes: int
    num_features: int
    feature_info: list[dict[str, Any]]

    @property
    def head_hidden_size(self) -> int:
        """How many numbers meet the classifier."""
        return int(getattr(self.head, "hidden_size", self.num_features))

    def get_classifier(self) -> nn.Module:
        classifier: nn.Module = self.head.fc  # type: ignore[assignment]
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)  # type: ignore[operator]

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drops what the maps of some stages do not need, as far as is known here: the head.

        timm's interface; the arguments are those of ``forward_intermediates`` and what to drop.

        Returns:
            The stages asked for, counted from the front.
        """
        chosen, _ = feature_take_indices(len(self.feature_info), indices)
        if prune_head:
            self.head = nn.Identity()
            self.num_classes = 0
        return list(chosen)

    def forward_features(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        logits: Tensor = self.head(x, pre_logits=pre_logits)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class StagedNet(HeadedNet):
    """``head(final(stages(stem(x))))``: the form of every network here that has one path.

    Args:
        stem: from the image to the first stage's input.
        stages: the stages, in order.
        head: see :class:`HeadedNet`.
        num_classes: what ``head`` was built for.
        channels: channels that leave each stage.
        reductions: image pixels a map's step stands for, after each stage; default 1, 2, 4, …
        final: what the last stage's maps still go through, such as a pre-activated net's last norm.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        head: nn.Module,
        num_classes: int,
        channels: Sequence[int],
        reductions: Sequence[int] = (),
        final: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.final = nn.Identity() if final is None else final
        self.head = head
        self.num_classes = num_classes
        self.num_features = channels[-1]
        self.stage_channels = tuple(channels)
        self.feature_info = [
            {"num_chs": width, "reduction": reduction, "module": f"stages.{i}"}
            for i, (width, reduction) in enumerate(
                zip(channels, reductions or [2**i for i in range(len(channels))], strict=True)
            )
        ]

    @property
    def pool(self) -> str:
        """Kind of the global pooling before the classifier."""
        pooling = getattr(self.head, "global_pool", None)
        return str(getattr(pooling, "pool_type", "avg"))

    def part(self, blocks: int) -> nn.Sequential:
        """The stem and the first ``blocks`` stages, as a network that ends in features.

        The modules are this network's own, but for what :meth:`finish` makes anew.
        """
        if blocks == len(self.stages):
            return nn.Sequential(self.stem, *self.stages, self.final)
        finish = self.finish(self.stage_channels[blocks - 1])
        return nn.Sequential(self.stem, *self.stages[:blocks], finish)

    def finish(self, channels: int) -> nn.Module:
        """A new ``final`` for maps that leave after an earlier stage."""
        return nn.Identity()

    def as_map(self, x: Any) -> Tensor:
        """What a stage hands on, as one map: itself, but where stages hand on several maps."""
        one_map: Tensor = x
        return one_map

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        features: Tensor = self.final(x)
        return features

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of some stages, and the features; timm's interface.

        Args:
            x: ``[B, C, H, W]``.
            indices: which stages; a number takes that many from the end, ``None`` all.
            norm: whether the last stage's maps go through ``final`` first.
            stop_early: leave out what comes after the last stage asked for.
            output_fmt: ``NCHW``, the only form of maps here.
            intermediates_only: give the maps without the features.
        """
        if output_fmt != "NCHW":
            raise InputError(f"maps come as 'NCHW' here, got output_fmt={output_fmt!r}")
        chosen, last = feature_take_indices(len(self.stages), indices)
        maps = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if i in chosen:
                is_normed = norm and i == len(self.stages) - 1
                maps.append(self.final(x) if is_normed else self.as_map(x))
        return maps if intermediates_only else (self.final(x), maps)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drops what the maps of some stages do not need: head, later stages, the last norm."""
        chosen = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        self.stages = self.stages[: max(chosen) + 1]
        if prune_norm:
            self.final = nn.Identity()
        return chosen
