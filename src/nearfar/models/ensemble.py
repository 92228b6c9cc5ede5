"""Several networks that answer together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from nearfar.errors import InputError

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """Networks whose answer is the mean of their probabilities; each learns from images of its own.

    .. math:: y = \\log \\tfrac{1}{M} \\sum_m \\mathrm{softmax}\\, f_m(x)

    In training every image is answered by one member alone: of a batch, the first image by the first
    member, the second by the second, and so on in turn. Batches come shuffled, so members learn the same
    images in different orders, and an epoch costs what it costs one of them. For each to learn as much
    as one network alone does, train M times as many epochs, in batches M times as large.

    Args:
        members: networks ``[B, C, H, W]`` → ``[B, K]``, that differ in their first weights at least.

    Shape:
        ``[B, C, H, W]`` → ``[B, K]``: log-probabilities; in training a member's answer for each image.

    Raises:
        InputError: no member, or members with different numbers of classes.

    Limits:
        A training batch of fewer than two images a member is answered by all of them together, since
        batch norm needs two.

    Source: L. K. Hansen and P. Salamon 1990; B. Lakshminarayanan et al. 2017 (each member trained alone).
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if not self.members:
            raise InputError("an ensemble needs at least one member")
        counts = {getattr(member, "num_classes", None) for member in self.members}
        if len(counts) > 1:
            raise InputError(
                f"members must answer for the same classes, got num_classes {sorted(map(str, counts))}"
            )
        self.num_classes = counts.pop()

    def get_classifier(self) -> tuple[nn.Module, ...]:
        """The classifier of each member."""
        return tuple(member.get_classifier() for member in self.members)  # type: ignore[operator]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """New classifiers; 0 leaves them out, and the answer is the mean of what met them."""
        for member in self.members:
            member.reset_classifier(num_classes, global_pool)  # type: ignore[operator]
        self.num_classes = num_classes

    def forward_features(self, x: Tensor) -> list[object]:
        """What each member's ``forward_features`` gives, all of them for every image."""
        return [member.forward_features(x) for member in self.members]  # type: ignore[operator]

    def forward_head(self, x: Sequence[object], pre_logits: bool = False) -> Tensor:
        """The members' answers together; ``pre_logits``: the mean of what meets the classifiers."""
        logits = [
            member.forward_head(features, pre_logits=pre_logits)  # type: ignore[operator]
            for member, features in zip(self.members, x, strict=True)
        ]
        return torch.stack(logits).mean(0) if pre_logits else self._combined(logits)

    def forward(self, x: Tensor) -> Tensor:
        count = len(self.members)
        if not self.training or len(x) < 2 * count:
            return self._combined([member(x) for member in self.members])
        logits = [member(x[m::count]) for m, member in enumerate(self.members)]
        positions = torch.cat([torch.arange(m, len(x), count) for m in range(count)])
        return torch.cat(logits)[positions.argsort().to(x.device)]

    def _combined(self, logits: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack(list(logits))
        if self.num_classes == 0:
            return stacked.mean(0)
        return stacked.log_softmax(-1).logsumexp(0) - math.log(len(logits))
