"""Which levels vote, how, and in which order a cascade looks: all that can be tried, on answers kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, permutations

import torch
from torch import Tensor

from nearfar.models.cascade import vote_of
from nearfar.models.hierarchical import Reduction

__all__ = ["VOTES", "Outcomes", "Structure", "Votes"]

#: How levels vote: the mean of their probabilities, of their logits, or the surest.
VOTES: tuple[Reduction, ...] = ("logsumexp", "mean", "max")


@dataclass(frozen=True)
class Structure:
    """Levels that vote.

    Attributes:
        order: the levels by number, in the order in which a cascade looks.
        reduction: how they vote.
        stops: whether it is a cascade, which stops when it is sure.
    """

    order: tuple[int, ...]
    reduction: Reduction
    stops: bool = False

    def orders(self) -> Iterator[Structure]:
        """The cascades of the same levels, in every order."""
        for order in permutations(self.order):
            yield Structure(order, self.reduction, stops=True)

    @staticmethod
    def all_of(levels: int, most: int) -> Iterator[Structure]:
        """Every set of levels up to a number, with every vote; one alone has no vote."""
        for number in range(1, most + 1):
            for order in combinations(range(levels), number):
                for reduction in VOTES if number > 1 else VOTES[:1]:
                    yield Structure(order, reduction)


@dataclass(frozen=True)
class Outcomes:
    """What came out for every image, ``[M]`` each.

    Attributes:
        right: whether the answer is right.
        confidence: probability of the best class.
        loss: negative log-probability of the label.
    """

    right: Tensor
    confidence: Tensor
    loss: Tensor


class Votes:
    """What sets of levels answer, computed once from their log-probabilities.

    Args:
        log_probabilities: ``[L, M, K]``: of every level for every image.
        labels: ``[M]``.
    """

    def __init__(self, log_probabilities: Tensor, labels: Tensor) -> None:
        self._levels = {1.0: log_probabilities}
        self._labels = labels
        self._outcomes: dict[tuple[frozenset[int], Reduction, float], Outcomes] = {}

    def outcomes(
        self, levels: tuple[int, ...], reduction: Reduction, temperature: float
    ) -> Outcomes:
        """Of the vote of some levels, in any order."""
        vote = reduction if len(levels) > 1 else VOTES[0]
        key = (frozenset(levels), vote, temperature)
        if key not in self._outcomes:
            self._outcomes[key] = self._voted(levels, vote, temperature)
        return self._outcomes[key]

    def _voted(self, levels: tuple[int, ...], reduction: Reduction, temperature: float) -> Outcomes:
        log_p = self._tempered(temperature)
        vote = vote_of([log_p[i] for i in sorted(levels)], reduction)
        best, prediction = vote.max(dim=1)
        loss = -vote.gather(1, self._labels[:, None])[:, 0]
        return Outcomes(prediction == self._labels, best.exp(), loss)

    def _tempered(self, temperature: float) -> Tensor:
        if temperature not in self._levels:
            self._levels[temperature] = (self._levels[1.0] / temperature).log_softmax(dim=-1)
        return self._levels[temperature]

    def looks(self, structure: Structure, temperature: float) -> tuple[Tensor, Tensor]:
        """Of a cascade: whether it is right after each look, and its confidence then, ``[looks, M]``."""
        order = structure.order
        prefixes = [order[:k] for k in range(1, len(order) + 1)]
        each = [self.outcomes(p, structure.reduction, temperature) for p in prefixes]
        return torch.stack([o.right for o in each]), torch.stack([o.confidence for o in each])
