"""Audits whose results are known beforehand."""

from __future__ import annotations

import math

import pytest
import torch
from auditing.made import by_colour, classifier, coloured, number_seen, numbered, size_seen
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.auditing import AuditSpec, audit
from nearfar.data import ScaleProtocol


@given(st.lists(st.sampled_from([0.4, 0.5, 0.7, 1.0, 1.3, 2.0, 2.5]), min_size=2, unique=True))
@settings(max_examples=8)
def test_what_does_not_care_about_size_holds_everywhere(scales):
    found = audit(
        classifier(by_colour), coloured(30), AuditSpec(scales=tuple(scales), flips=10)
    ).only
    assert found.curve.reference == 1.0
    assert all(found.curve.accuracy(s) == 1 for s in found.curve.scales)
    ends = (min(*scales, 1.0), max(*scales, 1.0))
    assert found.curve.band(1.0, 0.0) == ends
    assert found.curve.band_interval(1.0, 0.0) == ((ends[0], ends[0]), (ends[1], ends[1]))
    assert all(found.curve.figure("flips", s) == 0 for s in found.curve.scales)
    assert bool(found.flips.smaller.isnan().all())
    assert bool(found.flips.larger.isnan().all())
    assert (found.flips.lowest, found.flips.highest) == ends
    assert found.failures == ()
    sure = math.exp(4) / (math.exp(4) + 2)
    assert found.curve.figure("confidence", 1.0) == pytest.approx(sure)
    assert found.curve.figure("ece", 1.0) == pytest.approx(1 - sure, abs=1e-6)
    assert found.curve.top5 is None


def test_what_knows_one_size_holds_there_only():
    def answer(images):
        known = (size_seen(images) - 1).abs() < 0.1
        return torch.where(known, number_seen(images) % 3, (number_seen(images) + 1) % 3)

    found = audit(classifier(answer), numbered(30), AuditSpec(flips=5)).only
    assert found.curve.band(1.0, 0.05) == (1.0, 1.0)
    assert [found.curve.accuracy(s) for s in found.curve.scales] == [0, 0, 1, 0, 0]
    assert [found.curve.figure("flips", s) for s in found.curve.scales] == [1, 1, 0, 1, 1]
    assert len(found.failures) == 12
    for failure in found.failures:
        assert failure.scale == 0.75  # nearer to 1 than 1.5, in octaves
        assert failure.label == failure.index % 3
        assert failure.answer == (failure.index + 1) % 3
        assert failure.confidence == pytest.approx(math.exp(4) / (math.exp(4) + 2))
        assert failure.recognised_image.shape == failure.failed_image.shape == (3, 48, 48)
        assert float(size_seen(failure.recognised_image[None])) == pytest.approx(1, abs=0.02)
        assert float(size_seen(failure.failed_image[None])) == pytest.approx(0.75, abs=0.02)
        assert int(number_seen(failure.failed_image[None])) == failure.index


@given(st.lists(st.floats(0.02, 0.98), min_size=5, max_size=5), st.integers(0, 99))
@settings(max_examples=6)
def test_known_accuracies_come_back(shares, seed):
    scales, count = (0.5, 0.75, 1.0, 1.5, 2.0), 400
    luck = torch.rand(count, generator=torch.Generator().manual_seed(seed))

    def answer(images):
        at, size = number_seen(images), size_seen(images)
        nearest = (size[:, None].log() - torch.tensor(scales).log()).abs().argmin(1)
        right = luck[at] < torch.tensor(shares)[nearest]
        return torch.where(right, at % 7, (at + 1) % 7)

    found = audit(classifier(answer, 7), numbered(count, 7), AuditSpec(scales=scales, flips=0)).only
    for scale, share in zip(scales, shares, strict=True):
        right = luck < share
        assert torch.equal(found.curve.right(scale), right)
        low, high = found.curve.interval(scale)
        assert low <= float(right.double().mean()) <= high
        # Four standard errors: so far off no draw of luck is.
        spread = 4 * math.sqrt(share * (1 - share) / count) + 1 / count
        assert low - spread <= share <= high + spread
    assert found.flips is None
    assert found.curve.figures == ("top1", "top5", "confidence", "ece", "flips")


def test_each_model_is_shown_the_images_on_its_own_canvas():
    seen = {}

    def watching(name):
        def answer(images):
            seen[name] = tuple(images.shape[1:])
            return by_colour(images)

        return answer

    models = {
        "small": classifier(watching("small"), canvas=24, content=16),
        "large": classifier(watching("large"), canvas=64, content=40),
    }
    found = audit(models, coloured(9), AuditSpec(scales=(0.5, 1.0), flips=0), baseline="large")
    assert list(found.results) == ["large", "small"]
    assert seen == {"small": (3, 24, 24), "large": (3, 64, 64)}
    assert (
        found.results["large"]
        .notes[1]
        .startswith(
            "At scale s an image's longer side covers 40·s pixels about the middle of a canvas of 64×64"
        )
    )
    assert (
        "From 0.5× on, images are enlarged beyond the 16×16 pixels they hold: detail is not added."
        in (found.results["large"].notes)
    )
    assert "No image is enlarged beyond the pixels that it holds." in found.results["small"].notes


@pytest.mark.parametrize(
    ("background", "level"), [("grey", 0.5), ("black", 0.0), ("edge", 200 / 255)]
)
def test_the_background_is_what_was_asked_for(background, level):
    corners = []

    def answer(images):
        corners.append(images[torch.arange(len(images)), by_colour(images), 0, 0])
        return by_colour(images)

    found = audit(
        classifier(answer), coloured(6), AuditSpec(scales=(0.5, 1), flips=0, background=background)
    )
    assert torch.cat(corners).tolist() == pytest.approx([level] * len(torch.cat(corners)), abs=1e-5)
    assert found.only.protocol == ScaleProtocol(
        48, 16, test_scales=(0.5, 0.75, 1.0, 1.5, 2.0), background=background
    )
