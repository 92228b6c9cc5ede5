"""A figure registered from outside of the package is met everywhere a built-in one is."""

from __future__ import annotations

import json
import math
import re
from importlib.resources import files

import jsonschema
import pytest
import torch
from auditing.audits import exact, full
from auditing.made import classifier, coloured, size_seen

from nearfar.auditing import (
    AuditSpec,
    Figure,
    ScaleCurve,
    audit,
    figure_registry,
    register_figure,
)
from nearfar.auditing.accuracy import NO_PREDICTION, CurveRecorder
from nearfar.auditing.axes import AuditPoints
from nearfar.auditing.figure_registry import registered_figures
from nearfar.auditing.gate import judge, read_requirements
from nearfar.auditing.report import render_audit
from nearfar.auditing.wording import ZOOM
from nearfar.errors import InputError


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(figure_registry, "_REGISTRY", dict(registered_figures()))


def surprise(curve):
    """Minus the logarithm of the confidence, in nats."""
    return None if curve.confidence is None else -curve.confidence.double().log()


def test_in_json_table_gate_and_findings():
    register_figure(
        Figure(
            "surprise",
            "surprise in nats, against {reference}",
            column=surprise,
            unit="",
            higher_is_better=False,
            sentence=lambda name, curve: (
                f"{name}'s surprise is {curve.figure('surprise', 1.0):.2f}."
            ),
        )
    )
    found = audit(
        classifier(lambda images: (size_seen(images) > 1).long()),
        coloured(12),
        AuditSpec(scales=(0.5, 1, 2), flips=0),
        require=("surprise@0.5<=0.1", "surprise@2>1"),
    )
    value = -math.log(math.exp(4) / (math.exp(4) + 2))
    form = found.as_dict()
    schema = json.loads((files("nearfar.auditing") / "schema" / "audit.schema.json").read_text())
    jsonschema.validate(form, schema)
    figures = form["models"]["made"]["figures"]
    assert list(figures) == ["top1", "confidence", "ece", "flips", "surprise"]
    assert figures["surprise"]["value"] == pytest.approx([value] * 3, rel=1e-5)
    assert figures["surprise"]["low"] == pytest.approx([value] * 3, rel=1e-5)
    assert [(v.value, v.passed) for v in found.verdicts] == [
        (pytest.approx(value, rel=1e-5), True),
        (pytest.approx(value, rel=1e-5), False),
    ]
    html = render_audit(found)
    text = " ".join(re.sub("<[^>]*>", " ", html).split())
    assert f"surprise in nats, against 1× ↓ made {value:.3g}" in text
    assert f"made's surprise is {value:.2f}." in found.findings
    assert f"made's surprise is {value:.2f}." in html.replace("&#39;", "'")


def test_a_statistic_of_several_columns_is_resampled():
    """A standard deviation, from the means of a value and of its square."""
    draw = torch.Generator().manual_seed(0)
    confidence = torch.rand(2, 4000, generator=draw)
    zeros = torch.zeros(4000, dtype=torch.long)
    register_figure(
        Figure(
            "spread",
            "spread of the confidence",
            column=lambda curve: torch.stack([curve.confidence, curve.confidence**2], dim=-1),
            statistic=lambda means: (means[..., 1] - means[..., 0] ** 2).sqrt(),
        )
    )
    curve = ScaleCurve((0.5, 1.0), torch.zeros(2, 4000, dtype=torch.long), zeros, confidence)
    assert curve.figure("spread", 0.5) == pytest.approx(
        float(confidence[0].std(correction=0)), rel=1e-5
    )
    low, high = curve.interval(1.0, "spread")
    # The standard error of a uniform's standard deviation: sqrt((1/80 - 1/144) / 4N) / sd.
    half = 1.96 * math.sqrt((1 / 80 - 1 / 144) / 4000) / (2 / math.sqrt(12))
    middle = curve.figure("spread", 1.0)
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=0.15 * half)


def test_values_of_the_logits_are_recorded_batch_by_batch():
    def margin(logits, labels):
        best = logits.softmax(dim=1).topk(2, dim=1).values
        return best[:, 0] - best[:, 1]

    register_figure(Figure("margin", "lead over the second class", measure=margin))
    register_figure(Figure("many", "of many classes", measure=margin, min_classes=9))
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 10, 7, generator=draw), torch.arange(10) % 7
    logits[1, 3, 2] = math.nan
    recorder = CurveRecorder((0.5, 1.0), labels, 7)
    for row in range(2):
        for start in (0, 4, 8):
            recorder.add(row, start, logits[row, start : start + 4])
    curve = recorder.curve()
    assert curve.figures == ("top1", "top5", "confidence", "ece", "flips", "margin")
    predictions = logits.argmax(dim=2)
    predictions[1, 3] = NO_PREDICTION
    assert torch.equal(curve.predictions, predictions)
    assert recorder.accuracy(0, torch.arange(len(recorder.labels)) < 8) == float(
        (predictions[0, :8] == labels[:8]).double().mean()
    )
    assert torch.allclose(curve.confidence[0], logits[0].softmax(1).amax(1))
    fives = [int(labels[i]) in logits[0, i].topk(5).indices for i in range(10)]
    assert curve.top5[0].tolist() == fives
    assert not curve.top5[1, 3]
    assert curve.figure("margin", 0.5) == pytest.approx(float(margin(logits[0], labels).mean()))


def test_a_figure_that_a_model_has_no_values_for_is_not_met():
    register_figure(Figure("margin", "lead", measure=lambda logits, labels: logits[:, 0]))
    curve = exact({0.5: 0.4, 1.0: 0.8})
    requirements = read_requirements(
        ("margin@1>=0", "margin@1<0"), {"net": 3}, "net", AuditPoints((0.5, 1.0), 1.0, ZOOM)
    )
    verdicts = judge(requirements, {"net": curve}, "net", 0.05)
    assert all(math.isnan(v.value) and not v.passed for v in verdicts)
    assert "margin" not in full({"net": 1.0}, images=30).as_dict()["models"]["net"]["figures"]


def test_what_cannot_be_registered():
    with pytest.raises(InputError, match="the name 'top1' is taken; figures are top1, top5"):
        register_figure(Figure("top1", "another", column=surprise))
    with pytest.raises(InputError, match="the name 'band_low' is taken"):
        register_figure(Figure("band_low", "another", column=surprise))
    with pytest.raises(InputError, match="must be letters, digits and underscores, got 'a@b'"):
        Figure("a@b", "label", column=surprise)
    with pytest.raises(InputError, match="needs per-image values: give column"):
        Figure("a", "label")
    with pytest.raises(InputError, match="unit must be one of .* got 'ms'"):
        Figure("a", "label", column=surprise, unit="ms")
    once = register_figure(Figure("a", "label", column=surprise))
    assert register_figure(once) is once


def test_the_docs_snippet_registers_a_figure(pytestconfig):
    page = (pytestconfig.rootpath / "docs" / "results.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(snippet, "results.md", "exec"), {})
    curve = exact({0.5: 0.25, 1.0: 1.0}, confidence=0.75)
    assert curve.figure("brier", 0.5) == pytest.approx(0.25 * 0.25**2 + 0.75 * 0.75**2)
    assert curve.figure("brier", 1.0) == pytest.approx(0.25**2)
    (requirement,) = read_requirements(
        ("brier@0.5<=0.3",), {"net": 3}, "net", AuditPoints(curve.scales, 1.0, ZOOM)
    )
    assert not judge((requirement,), {"net": curve}, "net", 0.05)[0].passed
