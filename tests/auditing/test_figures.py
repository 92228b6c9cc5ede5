from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from nearfar.auditing import ScaleCurve, wilson_interval
from nearfar.auditing.figures import calibration_error
from nearfar.auditing.intervals import DRAWS, percentiles, resample
from nearfar.errors import InputError


def curve(rights, classes=10, **more):
    """A curve over images of label 0 and 1 in turns, with these answers right."""
    rights = torch.tensor(rights)
    labels = torch.arange(rights.shape[1]) % 2
    answers = torch.where(rights, labels, labels + 2)
    scales = tuple(2.0 ** (k - len(rights) // 2) for k in range(len(rights)))
    return ScaleCurve(scales, answers, labels, **more)


def shares(*accuracies, total=400, **more):
    at = torch.arange(total)
    return curve([(at * 7919 % total < round(a * total)).tolist() for a in accuracies], **more)


@given(st.integers(20, 500), st.floats(0.05, 0.95))
def test_the_interval_of_a_share_is_the_binomial_s(total, share):
    """Drawing with replacement makes the number of right answers binomial."""
    found = shares(share, total=total)
    share = found.accuracy(1.0)
    if not 0.02 < share < 0.98:
        return
    low, high = found.interval(1.0)
    spread = 1.96 * math.sqrt(share * (1 - share) / total)
    # Percentiles of 1,000 draws are known to about a tenth of the spread, counts to one.
    slack = 0.12 * spread + 1.5 / total
    assert low == pytest.approx(
        share - spread, abs=slack + 0.1 * spread / math.sqrt(share * (1 - share) * total)
    )
    assert high == pytest.approx(
        share + spread, abs=slack + 0.1 * spread / math.sqrt(share * (1 - share) * total)
    )


def test_draws_are_binomial_and_the_same_for_all_columns():
    columns = torch.zeros(200, 3)
    columns[:60, 0] = columns[:60, 1] = 1
    columns[:, 2] = 1
    sums, groups = resample(columns, columns[:, :1], [0, 60, 200])
    assert sums.shape == (DRAWS, 3)
    assert torch.equal(sums[:, 0], sums[:, 1])
    assert bool((sums[:, 2] == 200).all())
    assert torch.equal(groups[:, 0, 0], sums[:, 0])
    assert not groups[:, 1].any()
    assert float(sums[:, 0].mean()) == pytest.approx(60, abs=1)
    assert float(sums[:, 0].std()) == pytest.approx(math.sqrt(200 * 0.3 * 0.7), rel=0.1)
    assert torch.equal(resample(columns, columns[:, :1], [0, 200])[0], sums)


def test_percentiles_leave_out_what_is_not_there():
    draws = torch.arange(1000.0)
    low, high = percentiles(draws)
    assert (float(low), float(high)) == pytest.approx((24.975, 974.025))
    gaps = torch.cat([draws, torch.full((500,), math.nan)])
    assert torch.equal(torch.stack(percentiles(gaps)), torch.stack([low, high]))


def test_where_all_or_none_are_right_the_interval_is_wilson_s():
    found = shares(0.0, 1.0, 0.5, total=80)
    assert found.interval(0.5) == wilson_interval(0, 80)
    assert found.interval(1.0) == wilson_interval(80, 80)
    low, high = found.class_interval(3)
    assert low[0].tolist() == pytest.approx([0, wilson_interval(40, 40)[0], float(low[0, 2])])
    assert high[1].tolist()[:2] == pytest.approx([wilson_interval(0, 40)[1], 1])
    assert bool(low[2].isnan().all())


def test_classes():
    rights = [[True, True, True, False], [True, False, True, False]]
    found = curve(rights)
    assert found.class_accuracy(3)[:2].tolist() == [[1.0, 1.0], [0.5, 0.0]]
    assert bool(found.class_accuracy(3)[2].isnan().all())
    many = shares(0.5, total=1000)
    low, high = many.class_interval(2)
    share = many.class_accuracy(2)[0, 0]
    half = 1.96 * math.sqrt(float(share * (1 - share)) / 500)
    assert (float(low[0, 0]), float(high[0, 0])) == pytest.approx(
        (float(share) - half, float(share) + half), abs=0.008
    )


def test_calibration_error_by_hand():
    confidence = torch.tensor([0.95, 0.95, 0.95, 0.95, 0.5, 0.5])
    right = torch.tensor([True, True, True, False, True, False])
    # Four in the last bin: 3/4 right, 0.95 sure. Two in another: half right, half sure.
    assert calibration_error(confidence, right) == pytest.approx(4 / 6 * 0.2)
    # 1 belongs to the last bin, 1/15 to the first, as 0 does.
    edges = torch.tensor([1.0, 0.0, 1 / 15], dtype=torch.float64)
    assert calibration_error(edges, torch.tensor([False, True, False])) == pytest.approx(
        (1 + abs(1 - 1 / 15)) / 3
    )
    assert calibration_error(torch.ones(5), torch.ones(5, dtype=torch.bool)) == 0


def test_confidence_and_calibration_have_intervals():
    torch.manual_seed(0)
    found = shares(0.7, total=2000, confidence=torch.rand(1, 2000))
    mean = found.figure("confidence", 1.0)
    half = 1.96 * math.sqrt(1 / 12 / 2000)
    assert found.interval(1.0, "confidence") == pytest.approx((mean - half, mean + half), abs=2e-3)
    low, high = found.interval(1.0, "ece")
    assert low < found.figure("ece", 1.0) < high


def test_flips_are_counted_against_scale_one():
    labels = torch.zeros(8, dtype=torch.long)
    answers = torch.stack([labels, torch.tensor([0, 0, 1, 1, 2, 2, 2, 2])])
    found = ScaleCurve((2.0, 1.0), answers, labels)
    assert found.reference == 1.0
    assert found.figure("flips", 2.0) == 0.75
    assert found.figure("flips", 1.0) == 0
    assert found.interval(1.0, "flips") == (0, 0)
    low, high = found.interval(2.0, "flips")
    assert low < 0.75 < high


def test_figures_that_are_not_there():
    found = shares(0.5)
    assert found.figures == ("top1", "flips")
    with pytest.raises(
        InputError, match="figures here are top1, flips, got 'top5'; top5 needs at least 6 classes"
    ):
        found.figure("top5", 1.0)
    with pytest.raises(InputError, match="got 'ece'"):
        found.interval(1.0, "ece")
    top5 = torch.ones(1, 400, dtype=torch.bool)
    assert shares(0.5, top5=top5).figure("top5", 1.0) == 1.0
    assert shares(0.5, top5=top5).interval(1.0, "top5") == wilson_interval(400, 400)


def test_bands_have_intervals_of_their_ends():
    found = shares(0.2, 0.95, 1.0, 0.96, 0.955, total=200)
    assert found.band(1.0, 0.05) == (0.5, 4.0)
    low, high = found.band_interval(1.0, 0.05)
    assert low == (0.5, 1.0)  # 95 % of a hundred is at the edge of five points
    assert high == (1.0, 4.0)
    sharp = shares(0.2, 1.0, 1.0, 1.0, 0.3, total=200)
    assert sharp.band_interval(1.0, 0.05) == ((0.5, 0.5), (2.0, 2.0))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=7), st.floats(0, 0.5))
def test_bands_by_a_loop(rights, loss):
    found = shares(*[r / 40 for r in rights], total=40)
    ordered = sorted(found.scales)
    middle = ordered.index(1.0)
    floor = found.accuracy(1.0) - loss
    low = high = middle
    while low > 0 and found.accuracy(ordered[low - 1]) >= floor:
        low -= 1
    while high < len(ordered) - 1 and found.accuracy(ordered[high + 1]) >= floor:
        high += 1
    assert found.band(1.0, loss) == (ordered[low], ordered[high])


@given(st.lists(st.tuples(st.floats(0, 0.999), st.booleans()), min_size=1, max_size=60))
def test_calibration_error_is_torchmetrics_(rows):
    """Edges of bins and a confidence of 1 apart: there torchmetrics' bins are others."""
    confidence = torch.tensor([c for c, _ in rows], dtype=torch.float64)
    confidence = torch.where(
        (confidence * 15).frac().minimum(1 - (confidence * 15).frac()) < 1e-4, 0.5 / 15, confidence
    )
    right = torch.tensor([r for _, r in rows])
    expected = float(binary_calibration_error(confidence, right.long(), n_bins=15))
    assert calibration_error(confidence, right) == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 300), st.integers(1, 300))
def test_wilson_by_its_formula(correct, total):
    correct = min(correct, total)
    share, z = correct / total, 1.959963984540054
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + (z / total) ** 2 / 4)
    assert wilson_interval(correct, total) == pytest.approx((centre - half, centre + half))
