from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nearfar.auditing import (
    AuditSpec,
    ImageSelection,
    ScaleCurve,
    audit,
    cost_of,
    time_batches,
    wilson_interval,
    winner_maps,
)
from nearfar.auditing.findings import findings
from nearfar.auditing.intervals import paired_difference
from nearfar.auditing.plots import plot_curves, plot_winners
from nearfar.auditing.report import figure_bytes
from nearfar.classifiers import InputOptions
from nearfar.data import DataSpec, ScaleDataModule
from nearfar.errors import InputError
from nearfar.layers import SIConv2d
from nearfar.models import create_model
from nearfar.training import FitSpec, ModelSpec, train


@given(st.integers(1, 1000), st.data())
def test_wilson_bounds_solve_their_equation(total, data):
    """The bounds are the proportions p whose distance to the share is z standard errors at p."""
    correct = data.draw(st.integers(0, total))
    low, high = wilson_interval(correct, total)
    share = correct / total
    assert 0 <= low <= share <= high <= 1
    for p in (low, high):
        if 0 < p < 1:
            assert abs(share - p) == pytest.approx(
                1.959964 * math.sqrt(p * (1 - p) / total), rel=1e-6
            )


def test_wilson_covers_as_it_promises():
    """Simulated: the true share lies inside in about 95 % of samples."""
    generator = torch.Generator().manual_seed(0)
    draws = (torch.rand(4000, 60, generator=generator) < 0.9).sum(1).tolist()
    inside = [low <= 0.9 <= high for low, high in (wilson_interval(k, 60) for k in draws)]
    assert sum(inside) / 4000 == pytest.approx(0.95, abs=0.02)


def test_paired_difference():
    first = torch.tensor([True, True, True, False])
    second = torch.tensor([True, False, False, False])
    difference, half = paired_difference(first, second)
    assert difference == 0.5
    assert half == pytest.approx(1.959964 * math.sqrt(0.25 / 4))
    assert paired_difference(first, first) == (0.0, 0.0)


def curve(accuracies, total=100):
    """A curve with the given accuracies by scale."""
    labels = torch.zeros(total, dtype=torch.long)
    answers = torch.stack(
        [(torch.arange(total) >= round(a * total)).long() for a in accuracies.values()]
    )
    return ScaleCurve(tuple(accuracies), answers, labels)


def test_curves_and_bands():
    found = curve({0.3: 0.5, 0.5: 0.96, 1.0: 1.0, 1.5: 0.95, 2.0: 0.94, 3.0: 1.0})
    assert found.accuracy(0.3) == 0.5
    assert found.band(1.0, 0.05) == (0.5, 1.5)
    assert found.band(1.0, 0.0) == (1.0, 1.0)
    assert found.as_dict()["accuracy"]["2.0"] == 0.94


def test_findings_say_what_the_figures_say():
    scales = (0.5, 1.0, 2.0)
    said = findings(
        {
            "plain": curve(dict(zip(scales, (0.2, 0.99, 0.3), strict=True))),
            "good": curve(dict(zip(scales, (0.8, 0.97, 0.95), strict=True))),
            "bad": curve(dict(zip(scales, (0.1, 0.5, 0.3), strict=True))),
        },
        "plain",
    )
    assert said[0] == (
        "At 0.5 times the training size plain is right on 20 % of the test images and good on 80 % "
        "(+60 points); at 2 times the training size plain is right on 30 % of the test images and "
        "good on 95 % (+65 points)."
    )
    assert said[1] == (
        "Where each net stays within 5 points of its own accuracy at 1×: plain only at 1×, good 1× "
        "to 2×, bad only at 1×."
    )
    assert said[2] == (
        "good is ahead of plain at 0.5× and 2×, most at 2× (+65 points); at the other size the "
        "difference is within chance."
    )
    assert said[3] == (
        "bad does not help here: it is behind plain at 0.5× and 1×, most at 1× (-49 points); at the "
        "other size the difference is within chance."
    )


def test_findings_of_a_net_that_is_the_same():
    same = curve({0.5: 0.5, 1.0: 0.9})
    said = findings({"plain": same, "twin": same}, "plain")
    assert said[-1] == (
        "twin does not help here: its difference from plain is within chance at every size."
    )


def test_multiplications_are_those_of_the_arithmetic():
    model = create_model("cnn_small", in_chans=1)
    cost = cost_of(model, torch.zeros(1, 28, 28))
    assert cost.parameters == 13_578
    assert cost.multiplications == 28 * 28 * 25 * 16 + 14 * 14 * 25 * 16 * 32 + 32 * 10
    wsms = cost_of(create_model("wsms_cnn_small", in_chans=1), torch.zeros(1, 28, 28))
    half = 14 * 14 * 25 * 16
    assert wsms.multiplications == cost.multiplications - 320 + half + (32 + 16) * 10
    assert wsms.parameters == 13_578 + 16 * 10  # shared convolutions once, a wider classifier


def test_an_si_layer_costs_the_sum_of_its_squared_scales():
    plain, layer = nn.Conv2d(2, 3, 3, padding=1), SIConv2d(2, 3, 3, padding=1, scales=(0.5, 1, 2))
    image = torch.zeros(2, 8, 8)
    assert cost_of(layer, image).multiplications == cost_of(plain, image).multiplications * 5.25
    assert layer.training


def test_timing_takes_turns():
    calls = []

    class Named(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            calls.append(self.name)
            return x

    seconds = time_batches({"a": Named("a"), "b": Named("b")}, torch.zeros(1, 1, 2, 2), rounds=2)
    assert calls == ["a", "b"] * 3
    assert seconds.keys() == {"a", "b"}
    assert all(s > 0 for s in seconds.values())
    with pytest.raises(InputError, match="rounds must be at least 1"):
        time_batches({}, torch.zeros(1, 1, 2, 2), rounds=0)


@pytest.mark.parametrize("learning", [False, True])
def test_timing_of_training_takes_the_gradients_too(learning):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    time_batches({"net": net}, torch.ones(2, 1, 2, 2), rounds=1, learning=learning)
    assert (net[1].weight.grad is not None) == learning


def test_winner_maps_follow_size_and_ignore_empty_background():
    layer = SIConv2d(1, 1, 9, padding=4, scales=(0.5, 1.0, 2.0))
    at = torch.arange(9.0) - 4
    ring = torch.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / 8)
    with torch.no_grad():
        layer.weight[:] = ring - ring.mean()
        layer.bias[:] = 0.1  # fires on the empty background too, at every scale alike
    axis = torch.arange(65.0) - 32

    def blob(radius):
        return torch.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * radius**2))

    images = torch.stack([blob(4.0), blob(2.0), blob(1.0)])[:, None]
    net = nn.Sequential(layer, nn.ReLU())
    maps = winner_maps(net, images)
    assert list(maps) == ["0"]
    assert maps["0"][:, 32, 32].tolist() == pytest.approx([0.5, 1.0, 2.0])
    assert maps["0"][2, 0, 0].isnan()
    assert winner_maps(nn.Conv2d(1, 1, 3), images) == {}
    assert not net[0]._forward_hooks


def test_pictures_are_reproducible_and_take_an_axis():
    curves = {"plain": curve({0.5: 0.2, 1.0: 0.9}), "si": curve({0.5: 0.4, 1.0: 0.9})}
    from matplotlib.figure import Figure

    figure = Figure()
    assert plot_curves(curves, ax=figure.add_subplot()) is figure
    svg = figure_bytes(plot_curves(curves), "svg")
    assert svg == figure_bytes(plot_curves(curves), "svg")
    for word in (b"plain", b"si", b"trained here", b"right answers on test images"):
        assert word in svg
    maps = {"layer 1": [torch.tensor([[0.5, float("nan")]])]}
    png = figure_bytes(plot_winners([torch.zeros(2, 2)], maps, ["1×"], (0.5, 1, 2)), "png")
    assert png.startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "plain"
    data = DataSpec(train=400, validation=60, test=100)
    return train(ModelSpec("cnn_small"), data, FitSpec(epochs=4), out=out)


def test_audit_measures_on_the_images_put_aside(trained, tmp_path):
    steps = []
    whole = audit(
        trained.path, spec=AuditSpec(scales=(0.5, 1.0)), out=tmp_path, progress=steps.append
    )
    found = whole.only
    data = ScaleDataModule(trained.recipe.data)
    for scale in (0.5, 1.0):
        with torch.no_grad():
            answers = trained.model(data.images("test", scale)).argmax(1)
        assert found.curve.accuracy(scale) == float(
            (answers == data.labels("test")).double().mean()
        )
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert done[-1] == steps[-1].total
    assert len({step.total for step in steps}) == 1
    assert steps[0].note == f"cnn_small: {100 * found.curve.accuracy(1.0):.0f} % right at 1×"
    assert "100 test images of digits that the training of cnn_small put aside." in found.notes
    written = json.loads((tmp_path / "audit.json").read_text())
    assert written == whole.as_dict()
    assert audit(
        trained.path, spec=AuditSpec(flips=0), selection=ImageSelection(count=50)
    ).only.curve.predictions.shape == (9, 50)


def test_audit_s_batches_do_not_matter(trained):
    one, other = (
        audit(trained.path, spec=AuditSpec(scales=(1.0,), batch_size=b)).only for b in (7, 100)
    )
    assert torch.equal(one.curve.predictions, other.curve.predictions)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"spec": AuditSpec(scales=(0.0,))}, "positive and finite"),
        (lambda: {"spec": AuditSpec(batch_size=0)}, "batch_size must be at least 1, got 0"),
        (
            lambda: {"selection": ImageSelection(count=-1)},
            "images must be at least 0 .0 takes all., got -1",
        ),
        (
            lambda: {"spec": AuditSpec(flips=-1)},
            "flips must be at least 0, got -1",
        ),
        (
            lambda: {"spec": AuditSpec(max_loss=5)},
            "max_loss is a fraction, 0.05 for five points, got 5",
        ),
        (lambda: {"spec": AuditSpec(scales=(1.0, 1.0))}, "scales names a scale twice"),
        (
            lambda: {"spec": AuditSpec(scales=(0.01,))},
            "at scale 0.01 the content of 12 pixels would cover 0.12",
        ),
        (
            lambda: {"baseline": "other"},
            "baseline must be the name of one of the models, which are cnn_small",
        ),
        (lambda: {"inputs": InputOptions(size=28)}, "says itself how images are normalised"),
        (lambda: {"selection": ImageSelection(count=2000)}, "too few for train=400"),
        (
            lambda: {"spec": AuditSpec(background="red")},
            "background must be one of black, grey, edge, or a colour .* got 'red'",
        ),
        (lambda: {"data": "letters"}, "no data set is named 'letters'"),
    ],
)
def test_refusals(trained, make, message):
    with pytest.raises(InputError, match=message):
        audit(trained.path, **make())
