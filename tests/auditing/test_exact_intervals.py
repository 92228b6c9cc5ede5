"""Exact intervals against sums of binomial probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nearfar.auditing.exact_intervals import paired_interval, share_interval, unpaired_interval


def at_least(count, total, p):
    """The probability of at least so many successes."""
    return sum(math.comb(total, k) * p**k * (1 - p) ** (total - k) for k in range(count, total + 1))


@given(st.integers(1, 60), st.data(), st.sampled_from([0.05, 0.001]))
def test_ends_of_a_share_are_where_tails_are_half_of_the_error(total, data, error):
    count = data.draw(st.integers(0, total))
    low, high = share_interval(count, total, error)
    assert low <= count / total <= high
    if count:
        assert at_least(count, total, low) == pytest.approx(error / 2, rel=1e-6)
    if count < total:
        assert 1 - at_least(count + 1, total, high) == pytest.approx(error / 2, rel=1e-6)
    assert share_interval(0, 0, error) == (0, 1)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_a_paired_difference_is_beyond_chance_where_the_sign_test_is(both, neither, one, other):
    total = both + neither + one + other
    if not total:
        return
    right = torch.tensor([[1, 1]] * both + [[0, 0]] * neither + [[1, 0]] * one + [[0, 1]] * other)
    first, second = right.bool().T
    difference, low, high = paired_interval(first, second, 0.05)
    assert difference == (one - other) / total
    assert -1 <= low <= difference <= high <= 1
    more, disagree = max(one, other), one + other
    sign_test = 2 * at_least(more, disagree, 0.5)
    assert (low > 0 or high < 0) == (sign_test < 0.9 * 0.05)
    assert paired_interval(second, first, 0.05) == pytest.approx((-difference, -high, -low))


@pytest.mark.parametrize(("gains", "losses"), [(0.1, 0.1), (0.2, 0.02), (0.01, 0.0)])
def test_paired_intervals_cover_as_they_promise(gains, losses):
    """Simulated at an error of 10 %: at most about so many miss."""
    draw = torch.rand(1500, 80, generator=torch.Generator().manual_seed(0))
    missed = 0
    for row in draw:
        first = (row < gains) | (row > 0.5)
        second = ((row >= gains) & (row < gains + losses)) | (row > 0.5)
        _, low, high = paired_interval(first, second, 0.1)
        missed += not low <= gains - losses <= high
    assert missed / 1500 <= 0.1


def test_unpaired_intervals_cover_as_they_promise():
    generator = torch.Generator().manual_seed(0)
    missed = 0
    for _ in range(1000):
        first = torch.rand(50, generator=generator) < 0.7
        second = torch.rand(80, generator=generator) < 0.5
        difference, low, high = unpaired_interval(first, second, 0.1)
        assert low <= difference <= high
        missed += not low <= 0.2 <= high
    assert missed / 1000 <= 0.1
