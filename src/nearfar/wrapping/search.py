"""Which levels are to vote, how, at what temperature and until which confidence, by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.conversion import PyramidEnsemble
from nearfar.errors import InputError
from nearfar.progress import Progress, Step, silent
from nearfar.wrapping.levels import CandidateLevels
from nearfar.wrapping.structures import Structure, Votes

__all__ = ["TEMPERATURES", "THRESHOLDS", "LevelAnswers", "Choice", "choose"]

TEMPERATURES = (0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0, 5.66)
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.995)
#: So many sets of levels are tried at all temperatures and, as cascades, in every order.
_SHORTLIST = 16
_FOLDS = 5
#: The normal distribution's 95 % quantile: the mean cost is to stay within the budget.
_UPPER = 1.645


@dataclass(frozen=True)
class LevelAnswers:
    """What a network says at every level to images at every size.

    Attributes:
        log_probabilities: ``[L, S, N, K]``: levels, sizes at which the images are shown, images, classes.
        labels: ``[N]``: what is right.
        costs: ``[L]``: of each level, as a share of the network's own.
        base: which level is the image itself.
        at_one: which of the sizes is the images' own; ``None`` for none.
        weights: ``[N]``: how much each image counts; default: alike.
    """

    log_probabilities: Tensor
    labels: Tensor
    costs: Sequence[float]
    base: int
    at_one: int | None = None
    weights: Tensor | None = None


@dataclass(frozen=True)
class Choice:
    """Levels that vote, with what settles how, and how well that did on images that did not settle it.

    Attributes:
        structure: the levels.
        temperature: at which they vote.
        threshold: how sure a cascade has to be; ``None`` for a vote of all levels.
        cost: mean cost an image, as a share of the network's own.
        accuracy, base_accuracy: of the choice and of the network itself, by cross-validation: a mean over the
            sizes.
        tried: how many structures were compared.
    """

    structure: Structure
    temperature: float
    threshold: float | None
    cost: float
    accuracy: float
    base_accuracy: float
    tried: int

    def as_method(self, levels: CandidateLevels) -> PyramidEnsemble:
        """The conversion that makes the voting network of it.

        Args:
            levels: that were chosen from.
        """
        scales = tuple(levels.levels[i].scale for i in self.structure.order)
        return PyramidEnsemble(
            scales, self.structure.reduction, levels.window, self.temperature, self.threshold
        )


@dataclass(frozen=True)
class _Trial:
    """A structure under cross-validation, ``[N]`` each: means over the sizes."""

    structure: Structure
    right: Tensor
    right_at_one: Tensor
    cost: Tensor


def choose(
    answers: LevelAnswers,
    budget: float,
    *,
    most: int = 4,
    cascade: bool = True,
    max_loss: float = 0.01,
    progress: Progress = silent,
) -> Choice:
    """Finds the levels whose vote is right most often within a budget.

    Every set of up to ``most`` levels is tried with every vote. The best of them are tried at several
    temperatures (the one of smallest loss is taken) and, as cascades, in every order and with several
    thresholds: what has to be settled so is settled on four fifths of the images and judged on the fifth
    left, five times. Of those that are not worse than the best by more than one standard error (paired) the
    cheapest is chosen, and its temperature and threshold are settled on all images.

    Args:
        answers: of the network, at all levels.
        budget: how many times the network's own multiplications an image may cost in the mean, the upper end
            of its one-sided 95 % interval included; at least 1.
        most: how many levels at most.
        cascade: whether it may look again only where it is unsure.
        max_loss: how much accuracy may be lost at the images' own size.
        progress: called after each structure.

    Raises:
        InputError: fewer than 10 images, a number out of range, or a budget below 1.

    Source: the rule of one standard error: L. Breiman et al. 1984, §3.4.3.
    """
    _check(answers, budget, most, max_loss)
    search = _Search(answers, budget)
    base = Structure((answers.base,), "logsumexp")
    candidates = search.shortlist(min(most, len(answers.costs)), cascade)
    candidates = list(dict.fromkeys([base, *candidates]))
    trials = []
    for number, structure in enumerate(candidates, start=1):
        trials += search.trial(structure)
        progress(Step("choosing levels", number, len(candidates)))
    plain = trials[0]
    fine = [t for t in trials if search.mean(plain.right_at_one - t.right_at_one) <= max_loss]
    best = max(fine, key=lambda t: search.mean(t.right))
    level = [t for t in fine if search.is_level(t, best)]
    chosen = min(level, key=lambda t: (float(t.cost.mean()), -search.mean(t.right)))
    temperature, threshold, cost = search.settled(chosen.structure)
    accuracy, before = search.mean(chosen.right), search.mean(plain.right)
    return Choice(chosen.structure, temperature, threshold, cost, accuracy, before, len(candidates))


def _check(answers: LevelAnswers, budget: float, most: int, max_loss: float) -> None:
    if len(answers.labels) < 2 * _FOLDS:
        raise InputError(
            f"choosing levels needs at least {2 * _FOLDS} images, got {len(answers.labels)}"
        )
    if not 1 <= budget < math.inf:
        raise InputError(
            f"budget is how many times the network's own multiplications an image may cost, at least 1, got "
            f"{budget}"
        )
    if most < 1 or not 0 <= max_loss <= 1:
        raise InputError(
            f"most is at least 1 level and max_loss a fraction from 0 to 1, got {most} and {max_loss}"
        )


class _Search:
    """The answers, and what structures make of them."""

    def __init__(self, answers: LevelAnswers, budget: float) -> None:
        _, self.sizes, self.images, _ = answers.log_probabilities.shape
        flat = answers.log_probabilities.flatten(1, 2)
        self.votes = Votes(flat, answers.labels.repeat(self.sizes))
        self.costs = torch.tensor(answers.costs, dtype=torch.float64)
        self.at_one, self.budget = answers.at_one, budget
        weights = torch.ones(self.images) if answers.weights is None else answers.weights
        self.weights = weights.double() / weights.double().mean()
        folds = torch.arange(self.images) % _FOLDS
        self.folds = torch.stack([folds == f for f in range(_FOLDS)])
        self._last: dict[tuple[Structure, float], tuple[Tensor, Tensor]] = {}

    def mean(self, values: Tensor) -> float:
        """Over the images, ``[N]``, as they count."""
        return float((values * self.weights).mean())

    def is_level(self, trial: _Trial, best: _Trial) -> bool:
        """Whether a trial is no further behind the best than one standard error."""
        behind = (best.right - trial.right) * self.weights
        return float(behind.mean()) <= float(behind.std()) / math.sqrt(len(behind))

    def shortlist(self, most: int, cascade: bool) -> list[Structure]:
        """The best sets of levels that the budget bears at once and, as cascades, whatever they cost."""
        everything = list(Structure.all_of(len(self.costs), most))
        right = {s: self.mean(self._by_image(self._whole(s, 1.0))) for s in everything}
        ranked = sorted(everything, key=lambda s: -right[s])
        affordable = [s for s in ranked if float(self.costs[list(s.order)].sum()) <= self.budget]
        chosen = affordable[:_SHORTLIST]
        if cascade:
            several = [s for s in ranked if len(s.order) > 1][:_SHORTLIST]
            firsts = [o for s in several for o in s.orders()]
            chosen += [o for o in firsts if float(self.costs[o.order[0]]) <= self.budget]
        return chosen

    def _whole(self, structure: Structure, temperature: float) -> Tensor:
        return self.votes.outcomes(structure.order, structure.reduction, temperature).right

    def _by_image(self, values: Tensor) -> Tensor:
        """``[S·N]`` → ``[N]``: the mean over the sizes."""
        return values.double().view(self.sizes, self.images).mean(0)

    def trial(self, structure: Structure) -> list[_Trial]:
        """Cross-validation of a structure; nothing where no threshold keeps within the budget."""
        right, at_one, cost = torch.zeros(3, self.images, dtype=torch.float64)
        for fold in self.folds:
            setting = self._setting(structure, ~fold)
            if setting is None:
                return []
            temperature, row = setting
            every_right, every_cost = self._tables(structure, temperature)
            right[fold] = every_right[row].mean(0)[fold]
            cost[fold] = every_cost[row].mean(0)[fold]
            if self.at_one is not None:
                at_one[fold] = every_right[row, self.at_one, fold]
        return [_Trial(structure, right, at_one, cost)]

    def settled(self, structure: Structure) -> tuple[float, float | None, float]:
        """Temperature, threshold and mean cost, from all images."""
        setting = self._setting(structure, torch.ones(self.images, dtype=torch.bool))
        # Where four fifths of the images were within the budget and all are not, it stops soonest.
        temperature, row = setting or (1.0, 0)
        cost = float(self._tables(structure, temperature)[1][row].mean())
        return temperature, THRESHOLDS[row] if structure.stops else None, cost

    def _setting(self, structure: Structure, which: Tensor) -> tuple[float, int] | None:
        """Temperature of smallest loss, and of the thresholds within the budget the best, on some images."""

        def loss(temperature: float) -> float:
            outcomes = self.votes.outcomes(structure.order, structure.reduction, temperature)
            return float((self._by_image(outcomes.loss) * self.weights)[which].mean())

        temperature = min(TEMPERATURES, key=loss)
        right, cost = (t.mean(1)[:, which] for t in self._tables(structure, temperature))
        upper = cost.mean(1) + _UPPER * cost.std(1) / cost.shape[1] ** 0.5
        score = (right * self.weights[which]).mean(1).masked_fill(upper > self.budget + 1e-9, -1)
        best = int(score.argmax())
        return None if score[best] < 0 else (temperature, best)

    def _tables(self, structure: Structure, temperature: float) -> tuple[Tensor, Tensor]:
        """Whether each answer is right, and what it costs, ``[thresholds, S, N]``."""
        if (structure, temperature) not in self._last:
            self._last = {k: v for k, v in self._last.items() if k[0] == structure}
            self._last[structure, temperature] = self._computed(structure, temperature)
        return self._last[structure, temperature]

    def _computed(self, structure: Structure, temperature: float) -> tuple[Tensor, Tensor]:
        shape = (-1, self.sizes, self.images)
        costs = self.costs[list(structure.order)]
        if not structure.stops:
            right = self._whole(structure, temperature).double().view(shape)
            return right, costs.sum().expand(right.shape)
        right, confidence = self.votes.looks(structure, temperature)
        sure = confidence >= torch.tensor(THRESHOLDS)[:, None, None]
        sure[:, -1] = True
        last = sure.int().argmax(dim=1)
        return right.double().gather(0, last).view(shape), costs.cumsum(0)[last].view(shape)
