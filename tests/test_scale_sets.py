from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfar.errors import InputError
from nearfar.scale_sets import SCALE_SETS, as_ratio, as_scales, scales


def test_the_six_scales_of_the_paper():
    assert scales(0.6, 2.0, 6) == SCALE_SETS["six"] == (0.6, 0.88, 1.16, 1.44, 1.72, 2.0)


def test_geometric_spacing_has_equal_ratios():
    actual = scales(0.5, 2.0, 5, spacing="geometric")
    ratios = [b / a for a, b in itertools.pairwise(actual)]
    assert ratios == pytest.approx([2**0.5] * 4)
    assert (actual[0], actual[2], actual[-1]) == (0.5, 1.0, 2.0)


def test_a_single_scale():
    assert scales(1, 1, 1) == (1.0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 1, 3), r"lo <= hi and n >= 1 .* got lo=2, hi=1, n=3; swap"),
        ((1, 2, 1), "n = 1 only where lo == hi"),
        ((0, 1, 2), "every scale must be positive and finite, got 0.0"),
        ((1, float("inf"), 2), "positive and finite, got inf"),
        ((1, 2, 2, "log"), "spacing must be 'linear' or 'geometric', got 'log'"),
    ],
)
def test_refusals_of_scales(arguments, message):
    with pytest.raises(InputError, match=message):
        scales(*arguments)


def test_names_and_sequences():
    assert as_scales("octave") == (0.5, 0.75, 1.0, 1.5, 2.0)
    assert as_scales([Fraction(1, 2), 1]) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("scale_set", "message"),
    [
        ("octaves", "no scale set is named 'octaves'; the named sets are octave, six, down"),
        ((), "scales is empty"),
        ((1, -2), r"positive and finite, got -2.0 in \(1.0, -2.0\)"),
        (3, r"must be a sequence of positive numbers such as \(0.5, 1, 2\), got 3"),
        (("a",), "must be a sequence of positive numbers"),
    ],
)
def test_refusals_of_as_scales(scale_set, message):
    with pytest.raises(InputError, match=message):
        as_scales(scale_set)


@given(st.integers(1, 100), st.integers(1, 100))
def test_ratios_come_back_from_their_floats(numerator, denominator):
    assert as_ratio(numerator / denominator) == Fraction(numerator, denominator)


def test_decimals_are_taken_at_their_word():
    assert as_ratio(0.7) == Fraction(7, 10)
