from __future__ import annotations

import math

import pytest
import torch
from auditing.made import CONTENT, classifier, number_seen, numbered, size_seen
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.auditing import AuditSpec, audit
from nearfar.auditing.flips import PRECISION, most_predictions


def switching(low, high):
    """Another answer below one size and above another; both may differ from image to image."""

    def answer(images):
        at, size = number_seen(images), size_seen(images)
        return ((size < low[at]) | (size > high[at])).long()

    return answer


@given(st.integers(0, 1000))
@settings(max_examples=5)
def test_known_thresholds_are_found(seed):
    draw = torch.Generator().manual_seed(seed)
    count = 24
    low = 0.42 + 0.5 * torch.rand(count, generator=draw)
    high = 1.08 + 0.9 * torch.rand(count, generator=draw)
    made = classifier(switching(low, high), canvas=64)
    found = audit(made, numbered(count), AuditSpec(scales=(0.4, 1.0, 2.0), flips=count)).only.flips
    images = numbered(count).images.float() / 255
    for i, smaller, larger in zip(found.images, found.smaller, found.larger, strict=True):
        for scale, inwards in ((smaller, PRECISION), (larger, 1 / PRECISION)):
            # There the answer is another; so much nearer to 1 it is not.
            for s, other in ((scale, True), (scale * inwards, False)):
                shown = made.input_spec.protocol.render_each(images[i : i + 1], s[None])
                assert bool(made.predict(shown).argmax() != 0) == other
        assert float(smaller) == pytest.approx(float(low[i]), rel=0.04)
        assert float(larger) == pytest.approx(float(high[i]), rel=0.04)


def test_answers_that_stay_are_nan_and_the_images_are_stratified():
    made = classifier(lambda images: number_seen(images) % 3)
    found = audit(made, numbered(90), AuditSpec(scales=(0.5, 1.0, 2.0), flips=30)).only.flips
    assert bool(found.smaller.isnan().all())
    assert bool(found.larger.isnan().all())
    assert (found.images % 3).bincount().tolist() == [10, 10, 10]
    assert len(set(found.images.tolist())) == 30
    assert (found.lowest, found.highest, found.precision) == (0.5, 2.0, 1.02)


def test_the_search_asks_no_more_than_announced():
    asked = []

    def answer(images):
        asked.append(len(images))
        return (size_seen(images) > 1.3).long()

    steps = []
    audit(
        classifier(answer, 2),
        numbered(40, 2),
        AuditSpec(scales=(0.5, 1, 2), flips=20),
        progress=steps.append,
    )
    searched = most_predictions(20, 0.5, 2.0)
    # One octave is eight steps; a step is halved three times to be known to 2 %.
    assert searched == 20 * (1 + 2 * (8 + 3))
    assert steps[-1].total == 40 * 3 + searched
    assert sum(asked) <= 40 * 3 + searched + 40 * 8  # timing asks about a batch some times
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert done[-1] == steps[-1].total


def test_one_direction_only():
    made = classifier(lambda images: (size_seen(images) > 1.5).long(), 2)
    found = audit(made, numbered(10, 2), AuditSpec(scales=(1.0, 2.0), flips=10)).only.flips
    assert bool(found.smaller.isnan().all())
    assert found.larger.tolist() == pytest.approx([1.5] * 10, rel=0.03)
    assert most_predictions(10, 1.0, 1.0) == 10
    assert math.isclose(CONTENT * found.highest, 32)
    assert audit(made, numbered(10, 2), AuditSpec(scales=(1.0,))).only.flips is None
