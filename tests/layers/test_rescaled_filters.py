"""Layers that rescale the filter: values from their formulas in loops, contracts, gradients, refusals."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nearfar.counting import count
from nearfar.errors import InputError
from nearfar.layers import (
    DilatedScaleConv2d,
    DiscoConv2d,
    GaussianDerivativeConv2d,
    GaussianScaleSpace,
    ScalePool,
    SiCNNConv2d,
    SteerableConv2d,
)
from nearfar.layers.rescaled_filters.disco import fitted_lines
from nearfar.pyramid import Pyramid, expand

KINDS = {
    "steerable": SteerableConv2d,
    "disco": DiscoConv2d,
    "dilated": DilatedScaleConv2d,
    "derivative": GaussianDerivativeConv2d,
    "sicnn": SiCNNConv2d,
}


def hermite(n, x):
    """Probabilists' polynomials, by their recursion."""
    if n == 0:
        return 1.0
    return x if n == 1 else x * hermite(n - 1, x) - (n - 1) * hermite(n - 2, x)


def hermite_gaussian(n, m, sigma, reach, scale):
    """A function at a filter scale; of unit norm at 1, stretched, over the square of the scale."""

    def sample(s):
        half = math.floor(reach * s)
        places = [i / (s * sigma) for i in range(-half, half + 1)]
        return np.array(
            [
                [hermite(n, y) * hermite(m, x) * math.exp(-(x * x + y * y) / 2) for x in places]
                for y in places
            ]
        )

    return sample(scale) / np.linalg.norm(sample(1.0)) / scale**2


def dilated_taps(weight, side, scale):
    """Taps as far apart as the scale says, zeros between."""
    wide = np.zeros((*weight.shape[:-1], scale * (side - 1) + 1, scale * (side - 1) + 1))
    wide[..., ::scale, ::scale] = weight.reshape(*weight.shape[:-1], side, side)
    return wide


def resized_taps(weight, side, scale):
    """Bilinear resizing to the odd side nearest to the scale's, antialiased, keeping the sum."""
    new = 2 * math.floor(side * scale / 2) + 1
    taps = weight.reshape(-1, side, side)
    wide = np.stack([naive.resize(one, new, new, True) for one in taps])
    # Reading m samples of n multiplies sums by about m / n, along both axes.
    return wide.reshape(*weight.shape[:-1], new, new) * (side / new) ** 2


def kernels(kind, weight, side, scale):
    if kind in ("dilated",) or (kind == "disco" and scale == int(scale)):
        return dilated_taps(weight, side, int(scale))
    if kind == "sicnn":
        return resized_taps(weight, side, scale)
    if kind == "steerable":
        sigma = side / 2 / math.sqrt(2 * side - 1)
        orders = [(n, m) for n in range(side) for m in range(side)]
    else:
        sigma, orders = side / 6, [(1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
    basis = np.stack([hermite_gaussian(n, m, sigma, side / 2, scale) for n, m in orders])
    return np.einsum("...n,nyx->...yx", weight, basis)


@pytest.mark.parametrize(
    ("kind", "scales"),
    [
        ("steerable", (1, 1.26, 2)),
        ("disco", (1, 2, 3)),
        ("dilated", (1, 2, 4)),
        ("derivative", (1, 1.7, 2)),
        ("sicnn", (0.6, 1, 1.4, 2)),
    ],
)
@pytest.mark.parametrize(
    ("extent", "groups", "stride", "padding"), [(1, 2, 2, 1), (2, 1, 1, 2), (2, 2, 2, 0)]
)
def test_it_is_the_naive_definition(kind, scales, extent, groups, stride, padding):
    """y_s is the sum over k of the filter at size s convolved with level s + k."""
    if kind == "sicnn":
        extent = 1
    side = 5
    layer = KINDS[kind](
        4,
        2,
        side,
        stride,
        padding,
        groups=groups,
        filter_scales=scales,
        scale_extent=extent,
        dtype=torch.float64,
    )
    torch.manual_seed(extent)
    x = torch.randn(1, 4, 11, 9, dtype=torch.float64)
    if extent > 1:
        lift = SteerableConv2d(4, 4, 3, padding=1, filter_scales=scales, dtype=torch.float64)
        source = lift(x)
        maps = [level[0].detach().numpy() for level in source.levels]
    else:
        source, maps = x, [x[0].numpy()] * len(scales)
    output = layer(source)
    assert output.scales == tuple(1 / s for s in scales)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    for s, scale in enumerate(scales):
        kernel = kernels(kind, weight, side, scale)
        # Zeros far around, then the convolution without padding at the places of the smallest filter.
        more = padding + (kernel.shape[-1] - side) // 2
        total = 0.0
        for k in range(min(extent, len(scales) - s)):
            read = np.pad(maps[s + k], ((0, 0), (20, 20), (20, 20)))
            read = read[
                :, 20 - more : read.shape[1] - 20 + more, 20 - more : read.shape[2] - 20 + more
            ]
            total = total + naive.convolve(
                read, kernel[:, :, k], None, (stride,) * 2, ((0, 0),) * 2, (1, 1), groups
            )
        expected = torch.tensor(total + bias[:, None, None])
        torch.testing.assert_close(output.levels[s][0], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_at_filter_scale_1_it_is_a_convolution_of_conv2d_s_shape(kind):
    layer = KINDS[kind](3, 8, 5, stride=2, padding=2, filter_scales=(1,))
    x = torch.randn(2, 3, 15, 12)
    (level,) = layer(x).levels
    expected = nn.functional.conv2d(x, layer.kernel(0)[:, :, 0], layer.bias, 2, 2)
    torch.testing.assert_close(level, expected)
    for padding in ("same", "valid", 0, 3):
        plain = nn.Conv2d(3, 8, 5, padding=padding)(x)
        for y in KINDS[kind](3, 8, 5, padding=padding)(x).levels:
            assert y.shape == plain.shape


@given(
    sigma=st.sampled_from([2, 3]),
    seed=st.integers(0, 99),
    sides=st.tuples(*[st.integers(7, 9)] * 2),
)
def test_disco_commutes_with_subsampling_exactly(sigma, seed, sides):
    torch.manual_seed(seed)
    layer = DiscoConv2d(2, 3, 3, padding=1, filter_scales=(1, sigma), dtype=torch.float64)
    x = torch.randn(1, 2, *(n * sigma for n in sides), dtype=torch.float64)
    far = layer(x[..., ::sigma, ::sigma]).levels[0]
    near = layer(x).levels[1][..., ::sigma, ::sigma]
    torch.testing.assert_close(far, near)


def test_disco_s_fit_is_the_best_of_its_neighbours():
    """Monte Carlo over lines with the stated covariance: no small change of the basis errs less."""
    scale, side = 1.5, 3
    lines = fitted_lines(side, scale)
    reach = lines.shape[1] // 2
    assert fitted_lines(side, 2.0).abs().gt(1e-9).sum() == side  # whole scales: taps moved apart
    rng = np.random.default_rng(0)
    size = 2 * reach + 8
    covariance = 0.9 ** np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    samples = rng.multivariate_normal(np.zeros(size), covariance, 400)
    middle = size // 2 - 1
    phases = (np.arange(16) + 0.5) / 16

    def read(at):
        return np.stack([np.interp(at, np.arange(size), line) for line in samples])

    def cost(kernel, tap):
        error = 0.0
        for phase in phases:
            value = sum(
                kernel[u + reach] * read(np.array([middle + phase + u]))
                for u in range(-reach, reach + 1)
            )
            error += float(((value - read(np.array([middle + phase + tap * scale]))) ** 2).mean())
        return error

    best = cost(lines[2].numpy(), 1)
    for _ in range(3):
        change = rng.normal(0, 0.05, lines.shape[1])
        assert cost(lines[2].numpy() + change, 1) > best


def test_a_function_keeps_its_integral_and_a_blob_its_answer():
    """A Gaussian twice as wide gives the filter twice as large what the narrow one gives the filter."""
    layer = GaussianDerivativeConv2d(
        1, 3, 9, padding=4, bias=False, filter_scales=(1, 2), dtype=torch.float64
    )
    at = torch.arange(-20, 21, dtype=torch.float64)
    square = at[:, None].square() + at.square()
    narrow, wide = (torch.exp(-square / (2 * s * s))[None, None] for s in (2, 4))
    for one, other in zip(layer(narrow).levels[0][0], layer(wide).levels[1][0], strict=True):
        torch.testing.assert_close(one[20, 20], other[20, 20], rtol=0.02, atol=1e-6)
        torch.testing.assert_close(one[22, 18], other[24, 16], rtol=0.05, atol=2e-3)


def test_a_scale_space_blurs_by_the_stated_variance():
    space = GaussianScaleSpace((1, 2, 4), blur=0.7, padding_mode="zeros")
    x = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    x[..., 20, 20] = 1
    p = space(x)
    assert p.levels[0] is x
    at = torch.arange(-20, 21, dtype=torch.float64)
    for level, sigma in zip(p.levels[1:], (2, 4), strict=True):
        assert float(level.sum()) == pytest.approx(1)
        variance = float((level[0, 0].sum(0) * at.square()).sum())
        assert variance == pytest.approx(0.49 * (sigma**2 - 1), rel=0.05)  # cut at 3 deviations
        torch.testing.assert_close(level, level.mT)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    layer = KINDS[kind](2, 2, 3, padding=1, dtype=torch.float64)
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x).levels, (x, *layer.parameters()))


def test_gradients_over_scales():
    layer = SteerableConv2d(2, 2, 3, padding=1, scale_extent=2, dtype=torch.float64)
    lift = DiscoConv2d(2, 2, 3, padding=1, dtype=torch.float64)
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(lift(x)).levels, (x,))
    assert torch.autograd.gradcheck(lambda x: GaussianScaleSpace()(x).levels, (x,))


@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_those_of_a_convolution_a_size(kind):
    layer = KINDS[kind](3, 8, 5, padding=2)
    row, _ = count(nn.Sequential(layer, ScalePool()), (3, 24, 20)).rows
    sides = [layer.kernel(i).shape[-1] for i in range(len(layer.filter_scales))]
    assert row.multiplications == sum(3 * 8 * n * n * 24 * 20 for n in sides)
    assert row.weights == layer.weight.numel()
    assert row.parameters == row.weights + 8
    reach = max(layer.window(i).dilation[0] * (n - 1) + 1 for i, n in enumerate(sides))
    assert row.field == (reach, reach)


@pytest.mark.parametrize("kind", KINDS)
def test_state_and_precision(kind):
    layer = KINDS[kind](1, 2, 3, padding=1)
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert layer.train().state_dict().keys() == layer.eval().state_dict().keys()
    assert KINDS[kind](1, 2, 3, device="meta", bias=False).bias is None
    with torch.device("meta"):
        assert {t.device.type for t in KINDS[kind](1, 2, 3).buffers()} <= {"meta"}
    x = torch.randn(1, 1, 9, 9)
    for one, other in zip(layer(x).levels, layer.double()(x.double()).levels, strict=True):
        assert other.dtype == torch.float64
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-4)


def test_valid_over_scales_keeps_the_whole_levels():
    lift = SteerableConv2d(1, 2, 3, padding=1)
    end = SteerableConv2d(2, 3, 3, padding=1, scale_extent=2)
    valid = SteerableConv2d(2, 3, 3, padding=1, scale_extent=2, scale_padding="valid")
    valid.load_state_dict(end.state_dict())
    p = lift(torch.randn(1, 1, 9, 9))
    assert len(end(p)) == 4
    assert len(valid(p)) == 3
    assert all(map(torch.equal, valid(p).levels, end(p).levels))


def test_refusals():
    for size in (4, (3, 5)):
        with pytest.raises(InputError, match="kernel_size must be one odd number"):
            SteerableConv2d(1, 1, size)
    with pytest.raises(InputError, match=r"got dilation=\(2, 2\); leave it at 1"):
        DiscoConv2d(1, 1, 3, dilation=2)
    with pytest.raises(InputError, match=r"must ascend from at least 1, got \(2.0, 1.0\)"):
        SteerableConv2d(1, 1, 3, filter_scales=(2, 1))
    with pytest.raises(InputError, match="moves taps by whole samples, got the filter scale 1.5"):
        DilatedScaleConv2d(1, 1, 3, filter_scales=(1, 1.5))
    with pytest.raises(InputError, match="columns do not mix, got scale_extent=2"):
        SiCNNConv2d(1, 1, 3, scale_extent=2)
    with pytest.raises(InputError, match="order must be 1, 2, 3 or 4, got 0"):
        GaussianDerivativeConv2d(1, 1, 3, order=0)
    with pytest.raises(InputError, match="sigma must be a number of pixels above 0, got -1"):
        GaussianDerivativeConv2d(1, 1, 3, sigma=-1)
    with pytest.raises(InputError, match="groups=2 must divide in_channels=3"):
        SteerableConv2d(3, 4, 3, groups=2)
    with pytest.raises(InputError, match="must be at least 1, got in_channels=0"):
        SteerableConv2d(0, 4, 3)
    with pytest.raises(InputError, match="scale_extent=5 is more than there are filter_scales"):
        SteerableConv2d(1, 1, 3, scale_extent=5)
    with pytest.raises(InputError, match="padding_mode must be one of zeros.*, got 'mirror'"):
        SteerableConv2d(1, 1, 3, padding_mode="mirror")
    with pytest.raises(InputError, match="scale_padding must be 'end' or 'valid', got 'same'"):
        SteerableConv2d(1, 1, 3, scale_padding="same")
    x = torch.zeros(1, 1, 8, 8)
    with pytest.raises(
        InputError, match="slides over the scales of a pyramid, got one map; lift it"
    ):
        SteerableConv2d(1, 1, 3, scale_extent=2)(x)
    with pytest.raises(InputError, match="a pyramid on one grid with a level for each"):
        SteerableConv2d(1, 1, 3)(expand(x, (1, 0.5)))
    with pytest.raises(InputError, match="5×5 kernel is larger than the padded input"):
        SteerableConv2d(1, 1, 5)(torch.zeros(1, 1, 3, 9))
    with pytest.raises(InputError, match="needs a floating-point map"):
        SteerableConv2d(1, 1, 3)(x.int())
    with pytest.raises(InputError, match="must ascend from at least 1, got"):
        GaussianScaleSpace((0.5, 1))
    with pytest.raises(InputError, match="blur must be a number of pixels above 0, got 0"):
        GaussianScaleSpace(blur=0)
    with pytest.raises(InputError, match="padding_mode must be one of"):
        GaussianScaleSpace(padding_mode="none")
    assert "filter_scales=(1.0, 2.0, 4.0), blur=0.5" in repr(GaussianScaleSpace())
    assert "order=2, sigma=0.5" in repr(GaussianDerivativeConv2d(1, 1, 3))
    assert isinstance(SteerableConv2d(1, 1, 3)(torch.zeros(1, 8, 8)), Pyramid)
