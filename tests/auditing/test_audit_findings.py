from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from auditing.audits import bare, exact, full, result_of

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.findings import _half, audit_findings
from nearfar.auditing.result import Flips, LayerScores
from nearfar.auditing.wording import at_size, listed, points, sizes, span
from nearfar.errors import InputError

FALLING = {0.5: 0.41, 0.75: 0.77, 1.0: 0.8, 1.25: 0.78, 2.0: 0.61}


def said(curve=None, max_loss=0.05, **more):
    """The sentences about one classifier."""
    found = result_of(curve or exact({1.0: 0.9}), **more)
    return audit_findings({"net": found}, "net", max_loss)


def test_words():
    tested = (0.3, 0.5, 0.75, 1.0, 1.5, 2.0)
    assert sizes([0.3, 1.0, 2.0, 1.5], tested) == "0.3× and 1× to 2×"
    assert sizes([0.5, 0.3], tested) == "0.3× and 0.5×"
    assert sizes([1.0, 0.3, 2.0], tested) == "0.3×, 1× and 2×"
    assert (span(1.0, 1.0), span(0.5, 2.0)) == ("only at 1×", "0.5× to 2×")
    assert listed(["a"]) == "a"
    assert (points(0.014), points(-0.39)) == ("+1 point", "-39 points")
    assert at_size(0.5) == "at half the size"
    assert at_size(0.3) == "at 0.3× the size"


def test_the_headline_of_one_says_where_it_holds_and_what_it_loses():
    assert said(exact(FALLING)) == (
        "net holds from 0.75× to 1.25×: at half the size it is right on 41 % instead of 80 % of the "
        "images.",
    )
    assert said(exact(FALLING), max_loss=0.2)[0].startswith("net holds from 0.75× to 2×: at half")
    assert said(exact(FALLING), max_loss=0.5) == (
        "net holds at every size tested (0.5× to 2×): at half the size, where it does worst, it is "
        "right on 41 % of the images, and on 80 % at 1×.",
    )
    assert said(exact({0.4: 0.1, 1.0: 0.8}))[0] == (
        "net holds only at 1×: at 0.4× the size it is right on 10 % instead of 80 % of the images."
    )
    assert said(exact({1.0: 0.8, 2.0: 0.9})) == (
        "net holds at every size tested (1× to 2×): it is right on at least 80 % of the images.",
    )


def test_a_loss_that_may_be_chance_is_no_headline():
    few = exact({0.5: 0.7, 1.0: 0.8}, total=10)
    assert said(few) == (
        "net holds only at 1×; what it loses beyond is within chance on 10 images.",
    )
    many = exact({0.5: 0.7, 1.0: 0.8}, total=1000)
    assert "at half the size it is right on 70 % instead of 80 %" in said(many)[0]


def test_the_headline_of_several_sets_the_best_beside_the_baseline():
    curves = {
        "plain": exact(FALLING),
        "worse": exact(dict.fromkeys(FALLING, 0.1)),
        "flat": exact(dict.fromkeys(FALLING, 0.79)),
    }
    found = bare(curves).findings
    assert found[0] == (
        "flat holds at every size tested (0.5× to 2×), plain from 0.75× to 1.25×: at half the size "
        "flat is right on 79 % of the images and plain on 41 %."
    )
    assert found[1] == (
        "Where each stays within 5 points of its own accuracy at 1×: plain 0.75× to 1.25×, worse 0.5× "
        "to 2×, flat 0.5× to 2×."
    )
    assert found[2] == ("worse is behind plain at 0.5× to 2×, most at 1× (-70 points).")
    assert found[3] == (
        "flat is ahead of plain at 0.5× and 2×, most at 0.5× (+38 points); at the other 3 sizes the "
        "difference is within chance."
    )
    twins = bare({"a": exact(FALLING), "b": exact(FALLING)}).findings
    assert twins[0] == (
        "b and a hold from 0.75× to 1.25×; the two differ within chance at every size."
    )
    assert twins[2] == "b and a cannot be told apart: they differ within chance at every size."


def test_confidence_is_held_against_accuracy():
    assert said(exact(FALLING, confidence=0.83))[1:] == (
        "net is surer than it should be at 0.5× and 2×, most at 0.5×: there it is 83 % sure on "
        "average and right on 41 % of the images.",
    )
    # Six points at 1× that four images leave open; no word at all where it is never surer.
    assert len(said(exact({1.0: 0.75}, total=4, confidence=0.81))) == 1
    assert len(said(exact(FALLING, confidence=0.3))) == 1


def classes_curve(wrong_at_half, images=40, classes=4):
    """Right everywhere but at 0.5×, where these classes are wrong on so many images each."""
    labels = torch.arange(images * classes) % classes
    nth = torch.arange(images * classes) // classes
    bound = torch.tensor([wrong_at_half.get(k, 0) for k in range(classes)])
    half = torch.where(nth < bound[labels], (labels + 1) % classes, labels)
    return ScaleCurve((0.5, 1.0), torch.stack([half, labels]), labels)


def test_classes_that_lose_more_than_the_rest_are_named():
    names = ("cat", "dog", "ship", "car")
    assert said(classes_curve({1: 36, 3: 20}), classes=names)[-1] == (
        "For net, the class that loses most is dog: 90 points on average over the other sizes, where "
        "all images together lose 35."
    )
    two = said(classes_curve({1: 30, 3: 34}), classes=names)[-1]
    assert two.startswith("For net, the classes that lose most are car and dog: 85 and 75 points")
    assert not any("class" in s for s in said(classes_curve({1: 4}), classes=names))
    assert not any(
        "class" in s for s in said(classes_curve(dict.fromkeys(range(4), 9)), classes=names)
    )


def flips(smaller, larger, lowest=0.25, highest=4.0):
    both = [torch.tensor(v, dtype=torch.float64) for v in (smaller, larger)]
    return Flips(torch.arange(len(smaller)), *both, lowest, highest, 1.02)


def test_half_of_the_answers_flip_at_the_median():
    smaller = [1 - 0.005 * (i + 1) for i in range(99)]  # the 50th: 0.75
    larger = [1 + 0.02 * (i + 1) for i in range(49)] + [math.nan] * 50
    assert said(flips=flips(smaller, larger))[-1] == (
        "Half of net's answers have changed when the thing shrinks to 0.75× (95 % interval 0.70× to "
        "0.80×), on 99 images; more than half stay the same up to 4×."
    )
    assert said(flips=flips(smaller, [*larger[:-50], 2.5, *[math.nan] * 49]))[-1].endswith(
        "or grows to 2.50× (95 % interval 1.80× to beyond 4×), on 99 images."
    )
    never = [math.nan] * 20
    assert said(flips=flips(never, never))[-1] == (
        "More than half of net's answers stay the same down to 0.25× and up to 4×, on 20 images."
    )
    # A direction that was not searched is not spoken of.
    assert said(flips=flips(never, never, lowest=1.0))[-1].endswith(
        "stay the same up to 4×, on 20 images."
    )
    assert len(said(flips=flips(never, never, 1.0, 1.0))) == 1
    assert len(said(flips=flips(never[:9], never[:9]))) == 1  # too few to speak of


def layers(*scores):
    names = tuple(f"conv{i}" for i in range(len(scores)))
    return LayerScores(names, scores, (), tuple(() for _ in scores), images=50)


def test_the_layer_that_loses_invariance_is_named():
    assert said(layers=layers(3.0, 9.0, math.nan, 4.0, 2.0))[-1] == (
        "The invariance score of net falls most in conv3: from 9.0 in conv1 to 4.0, on 50 images."
    )
    assert said(layers=layers(3.0, 9.0))[-1] == (
        "The invariance score of net falls at no layer: it is 3.0 in conv0 and 9.0 in conv1, on 50 images."
    )
    assert len(said(layers=layers(3.0))) == 1


def test_refusals_and_what_was_not_measured():
    with pytest.raises(InputError, match="baseline must be one of"):
        audit_findings({}, "net", 0.05)
    found = full()
    nothing = {
        name: dataclasses.replace(
            result,
            curve=dataclasses.replace(result.curve, confidence=None, top5=None),
            flips=None,
            layers=None,
        )
        for name, result in found.results.items()
    }
    assert len(audit_findings(nothing, found.baseline, 0.05)) == 4
    assert len(found.findings) > 10


@pytest.mark.parametrize("count", [20, 99, 100])
def test_the_median_s_interval_covers_as_it_promises(count):
    """Simulated: the true median lies inside in at least 95 % of samples."""
    draws = torch.rand(2000, count, generator=torch.Generator().manual_seed(0)) + 1
    ends = [_half(row) for row in draws]
    inside = sum(low <= 1.5 <= high for _, low, high in ends) / len(ends)
    assert 0.94 < inside < 0.98
