"""NaN and infinities spread through the fast paths as the composition defines it, and no further."""

from __future__ import annotations

import pytest
import torch
from forcing import forced

from nearfar.functional import pyramid_conv2d, si_conv2d
from nearfar.grid import Axis, base_grid
from nearfar.kernels import reference_only
from nearfar.layers import SIConv2d
from nearfar.pyramid import expand, resample

ENGINES = ["dense", "numba_engine"]
VALUES = [torch.nan, torch.inf, -torch.inf]


def outputs_and_gradients(operator, source, value):
    """The operator's outputs and gradients, with ``value`` at one element of ``source``."""
    torch.manual_seed(0)
    tensors = {"x": torch.randn(2, 3, 12, 11), "weight": torch.randn(8, 3, 3, 3)}
    tensors["bias"] = torch.randn(8)
    if source in tensors:
        tensors[source].flatten()[len(tensors[source].flatten()) // 2] = value
    leaves = [t.requires_grad_() for t in tensors.values()]
    y, *winner = operator(*leaves)
    g = torch.randn(y.shape)
    if source == "gradient":
        g[1, 5, 4, 3] = value
    return y.detach(), *winner, *torch.autograd.grad(y, leaves, g)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", ["level", "taps"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("source", ["x", "weight", "bias", "gradient"])
@pytest.mark.parametrize("value", VALUES)
def test_an_si_layer_spreads_what_the_composition_does(engine, way, stride, source, value):
    def operator(x, weight, bias):
        return si_conv2d(x, weight, bias, stride, 1, scales=(0.5, 0.75, 1, 1.5), return_winner=True)

    with forced(engine, way):
        actual = outputs_and_gradients(operator, source, value)
    with reference_only():
        expected = outputs_and_gradients(operator, source, value)
    assert any(not t.isfinite().all() for t in expected)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("source", ["x", "weight", "bias", "gradient"])
@pytest.mark.parametrize("value", VALUES)
def test_a_pyramid_layer_spreads_what_the_composition_does(engine, source, value):
    def operator(x, weight, bias):
        return (pyramid_conv2d(x, weight, bias, 1, 1, scales=(1, 0.5, 0.75)),)

    with forced(engine, "level"):
        actual = outputs_and_gradients(operator, source, value)
    with reference_only():
        expected = outputs_and_gradients(operator, source, value)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", ["level", "taps"])
@pytest.mark.parametrize("needs_x", [True, False])
def test_a_gradient_spreads_where_one_of_the_arguments_needs_it(engine, way, needs_x):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 12, 11), torch.randn(8, 3, 3, 3)
    leaf = (x if needs_x else weight).requires_grad_()
    g = torch.randn(2, 8, 12, 11)
    g[1, 5, 0, 0] = torch.nan

    def gradient():
        return torch.autograd.grad(si_conv2d(x, weight, padding=1), leaf, g)[0]

    with forced(engine, way):
        actual = gradient()
    with reference_only():
        expected = gradient()
    assert 0 < expected.isnan().sum() < expected.numel()
    torch.testing.assert_close(actual, expected, equal_nan=True, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", ["level", "taps"])
def test_one_pixel_reaches_its_neighbourhood_alone(engine, way):
    """At scale ½, the widest: 4 pixels a sample, 3 samples a window, linear interpolation of these."""
    x = torch.randn(1, 32, 28, 28)
    x[0, 0, 14, 14] = torch.nan
    layer = SIConv2d(32, 64, 3, padding=1)
    with forced(engine, way), torch.no_grad():
        y = layer(x)
    rows, columns = (y.isnan().any(dim=1)[0].any(dim=d).nonzero().flatten() for d in (1, 0))
    assert rows.tolist() == columns.tolist() == list(range(9, 19))
    assert y.isnan().sum() == 64 * 10 * 10


@pytest.mark.parametrize("engine", ENGINES)
def test_overflow_within_the_layer_is_the_composition_s(engine):
    x, weight = torch.full((2, 8, 9, 9), 1e30), torch.full((8, 8, 3, 3), -1e30)
    with forced(engine, "taps"):
        y = si_conv2d(x, weight, padding=1)
    with reference_only():
        expected = si_conv2d(x, weight, padding=1)
    torch.testing.assert_close(y, expected, equal_nan=True)
    assert y.isneginf().any()


@pytest.mark.parametrize("size", [(12, 11), (12, 1), (1, 12)])
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("in_gradient", [False, True])
def test_shrinking_by_matrices_spreads_what_interpolation_does(size, value, in_gradient):
    def shrink():
        torch.manual_seed(0)
        x = torch.randn(2, 3, *size)
        if not in_gradient:
            x[1, 2, size[0] // 2, size[1] // 2] = value
        level = expand(x.requires_grad_(), (0.5,)).levels[0]
        g = torch.randn_like(level)
        if in_gradient:
            g[1, 2, -1, -1] = value
        return level.detach(), *torch.autograd.grad(level, x, g)

    actual = shrink()
    with reference_only():
        expected = shrink()
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


def test_reading_between_grids_spreads_to_what_reads_it():
    x = torch.zeros(1, 1, 6, 6, requires_grad=True)
    with torch.no_grad():
        x[0, 0, 2, 3] = torch.nan
    grid = (Axis(5, 1.0, 1.0, False), Axis(5, 1.0, 1.0, False))  # halfway between the samples
    y = resample(x, base_grid(6, 6), grid)
    assert y[0, 0].isnan().nonzero().tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    g = torch.zeros_like(y)
    g[0, 0, 0, 0] = torch.nan
    (gx,) = torch.autograd.grad(y, x, g)
    assert gx[0, 0].isnan().nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
