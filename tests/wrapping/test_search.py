"""The choice of levels: against plain loops, on answers of which it is known what is best."""

from __future__ import annotations

import itertools

import pytest
import torch

from nearfar.errors import InputError
from nearfar.wrapping import LevelAnswers, Structure, choose
from nearfar.wrapping.search import THRESHOLDS, _Search
from nearfar.wrapping.structures import Votes

K = 5


def answers(strength, costs, images=100, seed=0, base=1, **options):
    """CandidateLevels that know the label with a given strength at each size, ``[L, S]``, beside noise."""
    draw = torch.Generator().manual_seed(seed)
    strength = torch.tensor(strength, dtype=torch.float32)
    labels = torch.randint(K, (images,), generator=draw)
    noise = torch.randn(*strength.shape, images, K, generator=draw)
    logits = noise + strength[..., None, None] * torch.nn.functional.one_hot(labels, K)
    return LevelAnswers(logits.log_softmax(-1), labels, costs, base, **options)


def accuracy_by_hand(given, order, how, temperature, threshold, budgeted=None):
    """Mean accuracy over sizes and images, and mean cost: image by image."""
    _, sizes, images, _ = given.log_probabilities.shape
    right, cost = 0, 0.0
    for s, n in itertools.product(range(sizes), range(images)):
        levels = []
        for level in order:
            levels.append((given.log_probabilities[level, s, n] / temperature).log_softmax(0))
            cost += given.costs[level]
            stack = torch.stack(levels)
            vote = {
                "logsumexp": lambda x: x.exp().mean(0),
                "mean": lambda x: x.mean(0).softmax(0),
                "max": lambda x: x.amax(0).softmax(0),
            }[how](stack)
            if threshold is not None and vote.max() >= threshold:
                break
        right += int(vote.argmax()) == int(given.labels[n])
    return right / (sizes * images), cost / (sizes * images)


@pytest.mark.parametrize("how", ["logsumexp", "mean", "max"])
def test_outcomes_are_those_of_plain_loops(how):
    given = answers([[1, 0, 2], [2, 2, 0], [0, 1, 1]], (0.25, 1.0, 1.0), images=30)
    search = _Search(given, 10.0)
    for structure in (Structure((2, 0, 1), how, True), Structure((0, 2), how)):
        right, cost = search._tables(structure, 1.41)
        rows = THRESHOLDS if structure.stops else (None,)
        assert len(right) == len(rows)
        for row, threshold in enumerate(rows):
            expected = accuracy_by_hand(given, structure.order, how, 1.41, threshold)
            assert float(right[row].mean()) == pytest.approx(expected[0])
            assert float(cost[row].mean()) == pytest.approx(expected[1])


def test_the_loss_is_that_of_the_label():
    given = answers([[1], [2]], (0.25, 1.0), images=20)
    votes = Votes(given.log_probabilities.flatten(1, 2), given.labels)
    outcomes = votes.outcomes((1, 0), "logsumexp", 2.0)
    p = (given.log_probabilities[:, 0] / 2).softmax(-1).mean(0)
    expected = torch.nn.functional.nll_loss(p.log(), given.labels, reduction="none")
    torch.testing.assert_close(outcomes.loss, expected)
    torch.testing.assert_close(outcomes.confidence, p.amax(1))


def test_it_finds_the_levels_that_know_something():
    # CandidateLevel 0 knows the first size, level 2 the last; 3 knows nothing.
    given = answers([[6, 0, 0], [0, 6, 0], [0, 0, 6], [0, 0, 0]], (0.25, 1.0, 1.0, 0.5), at_one=1)
    choice = choose(given, 3.0, cascade=False)
    assert set(choice.structure.order) == {0, 1, 2}
    assert choice.threshold is None
    assert choice.cost == pytest.approx(2.25)
    assert choice.accuracy > choice.base_accuracy + 0.2
    narrow = choose(given, 1.5, cascade=False)
    assert set(narrow.structure.order) == {0, 1}


def test_a_cascade_costs_less_than_the_same_vote():
    given = answers([[6, 0, 0], [0, 6, 0], [0, 0, 6]], (0.25, 1.0, 1.0), images=300)
    whole, cascade = (choose(given, 2.25, cascade=c) for c in (False, True))
    assert cascade.structure.stops
    assert cascade.cost < whole.cost - 0.1
    assert cascade.accuracy > whole.accuracy - 0.02
    order = [(*cascade.structure.order,), cascade.structure.reduction]
    _, cost = accuracy_by_hand(given, *order, cascade.temperature, cascade.threshold)
    assert cascade.cost == pytest.approx(cost)


def test_without_anything_to_gain_the_network_stays_what_it_is():
    given = answers([[0, 0], [3, 3], [0, 0]], (0.25, 1.0, 1.0), at_one=0)
    choice = choose(given, 3.0)
    assert choice.structure.order == (1,)
    assert choice.cost == 1


def test_little_may_be_lost_at_the_images_own_size():
    # CandidateLevel 0 knows two other sizes, and nothing at the images' own.
    given = answers([[9, 0, 9], [0, 9, 0]], (0.25, 1.0), at_one=1, images=200)
    free = choose(given, 1.0, cascade=False, max_loss=1.0)
    bound = choose(given, 1.0, cascade=False)
    assert (free.structure.order, bound.structure.order) == ((0,), (1,))


def test_the_budget_holds_for_the_mean_with_its_interval():
    given = answers([[2, 1, 0], [1, 2, 1], [0, 1, 2]], (0.25, 1.0, 1.0), images=200)
    for budget in (1.0, 1.3, 1.6, 2.0):
        assert choose(given, budget).cost <= budget + 1e-9


def test_images_count_by_their_weight():
    draw = torch.Generator().manual_seed(3)
    given = answers([[5], [0]], (1.0, 1.0), images=200)
    other = answers([[0], [5]], (1.0, 1.0), images=200, seed=1)
    both = torch.cat([given.log_probabilities, other.log_probabilities], dim=2)
    labels = torch.cat([given.labels, other.labels])
    order = torch.randperm(400, generator=draw)
    for first, level in ((1.0, 0), (0.0, 1)):
        weights = torch.tensor([first + 1e-3, 1 - first + 1e-3]).repeat_interleave(200)
        mixed = LevelAnswers(
            both[:, :, order], labels[order], (1.0, 1.0), 1 - level, weights=weights[order]
        )
        assert choose(mixed, 1.0).structure.order == (level,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 0.5}, "budget is how many times .* at least 1, got 0.5"),
        ({"budget": 2.0, "most": 0}, "most is at least 1 level"),
        ({"budget": 2.0, "max_loss": 2.0}, "max_loss a fraction from 0 to 1"),
    ],
)
def test_what_it_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        choose(answers([[1], [1]], (1.0, 1.0)), **settings)


def test_few_images_are_refused():
    with pytest.raises(InputError, match="at least 10 images, got 5"):
        choose(answers([[1], [1]], (1.0, 1.0), images=5), 2.0)
