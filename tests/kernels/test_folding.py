from __future__ import annotations

from fractions import Fraction

import naive
import pytest
import torch

from nearfar.kernels.folding import Folding, can_fold, fold_axis

RATIOS = [Fraction(2), Fraction(3, 2), Fraction(3), Fraction(5, 2)]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (7, 7), (1, 3), (5, 3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_folding_is_the_naive_branch(ratio, kernel, groups):
    size = (14, 12)
    if not can_fold(ratio, size, kernel):
        pytest.skip("borders meet")
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    weight = torch.randn(4, 2 // groups, *kernel, dtype=torch.float64)
    fold = Folding(ratio, size, kernel, groups)
    y = fold.interior(x, fold.kernels(weight))
    for band, border in zip(fold.bands(y), fold.borders(fold.lines(x), weight), strict=True):
        band -= border
    same = tuple((k // 2, k // 2) for k in kernel)
    for one, image in zip(y, x, strict=True):
        expected, _, _ = naive.si_convolve(
            image.numpy(), weight.numpy(), None, (float(ratio),), (1, 1), same, (1, 1), groups, True
        )
        torch.testing.assert_close(one, torch.tensor(expected))


@pytest.mark.parametrize(
    ("ratio", "taps"),
    [(Fraction(2), {3: 3, 5: 5, 7: 5}), (Fraction(3, 2), {3: 4, 5: 5, 7: 7})],
)
def test_taps_are_as_many_as_the_derivation_says(ratio, taps):
    for kernel, expected in taps.items():
        fold = fold_axis(ratio, kernel)
        assert {len(t) for t in fold.taps} == {expected}
        assert fold.phases == ratio.denominator


def test_a_constant_stays_what_the_kernel_makes_of_it():
    """Away from the borders, E w sums to what w sums to."""
    for ratio in RATIOS:
        for taps in fold_axis(ratio, 5).taps:
            sums = torch.tensor(taps, dtype=torch.float64).sum(0)
            torch.testing.assert_close(sums, torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("ratio", "size", "kernel"),
    [
        (Fraction(1), (8, 8), (3, 3)),  # nothing to fold
        (Fraction(1, 2), (8, 8), (3, 3)),
        (Fraction(5, 4), (8, 8), (3, 3)),  # 16 phases cost more than they save
        (Fraction(3, 2), (8, 7), (3, 3)),  # 7 · 3/2 is no whole number
        (Fraction(2), (8, 8), (4, 4)),  # even kernels are not centred
        (Fraction(2), (1, 8), (3, 3)),  # the two borders meet
    ],
)
def test_what_does_not_fold(ratio, size, kernel):
    assert not can_fold(ratio, size, kernel)
