from __future__ import annotations

import naive
import numpy as np
import pytest
import torch
from forcing import forced
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nearfar.errors import InputError
from nearfar.functional import pyramid_conv2d
from nearfar.kernels import reference_only
from nearfar.layers import PyramidConv2d


@given(
    levels=st.integers(1, 3),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
)
def test_it_is_the_naive_definition(levels, kernel, stride, padding, dilation, groups, size):
    layer = PyramidConv2d(
        4,
        levels * 2,
        kernel,
        stride,
        padding,
        dilation,
        groups,
        levels=levels,
        dtype=torch.float64,
    )
    scales = [0.5**i for i in range(levels)]
    reach = dilation * (kernel - 1) + 1
    x = torch.randn(1, 4, *size, dtype=torch.float64)
    if min(naive.level_size(n, scales[-1]) for n in size) + 2 * padding < reach:
        with pytest.raises(InputError, match="kernel is larger than the padded input"):
            layer(x)
        return
    blocks = [
        naive.si_convolve(
            x[0].numpy(),
            layer.weight.detach().numpy(),
            layer.bias.detach().numpy(),
            (scale,),
            (stride, stride),
            ((padding, padding),) * 2,
            (dilation, dilation),
            groups,
            True,
        )[0]
        for scale in scales
    ]
    torch.testing.assert_close(layer(x)[0], torch.tensor(np.concatenate(blocks)))


@pytest.mark.parametrize("levels", [4, 3, 2])
def test_it_has_a_share_of_the_parameters_and_all_of_the_channels(levels):
    plain = nn.Conv2d(6, 24, 3, padding=1)
    layer = PyramidConv2d(6, 24, 3, padding=1, levels=levels)
    assert sum(p.numel() for p in layer.parameters()) * levels == sum(
        p.numel() for p in plain.parameters()
    )
    assert layer.weight.shape == (24 // levels, 6, 3, 3)
    x = torch.randn(2, 6, 17, 9)
    assert layer(x).shape == plain(x).shape


def test_gradients():
    layer = PyramidConv2d(2, 4, 3, padding=1, levels=2, dtype=torch.float64)
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_one_level_is_the_plain_convolution():
    layer = PyramidConv2d(3, 4, 3, padding=1, levels=1)
    x = torch.randn(1, 3, 8, 8)
    expected = nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
    assert torch.equal(layer(x), expected)


def test_repr_and_refusals():
    assert "PyramidConv2d(3, 4, kernel_size=(3, 3)" in repr(PyramidConv2d(3, 4, 3, levels=2))
    with pytest.raises(InputError, match=r"out_channels=10 and levels=4; take 8 channels"):
        PyramidConv2d(3, 10, 3)
    with pytest.raises(InputError, match="levels=0"):
        PyramidConv2d(3, 10, 3, levels=0)


@pytest.mark.parametrize("engine", ["dense", "native"])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 1, 1, 1), (2, 0, 1, 2), (1, 2, 2, 1)]
)
@pytest.mark.parametrize("scales", [(1, 0.5), (0.7, 1, 1.5)])
def test_the_fast_path_is_the_composition(engine, stride, padding, dilation, groups, scales):
    x = torch.randn(3, 2, 11, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 2 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)

    def through(x, weight, bias):
        return pyramid_conv2d(x, weight, bias, stride, padding, dilation, groups, scales=scales)

    def run():
        y = through(x, weight, bias)
        return y, *torch.autograd.grad(y.square().sum(), [x, weight, bias])

    with forced(engine, "level"):
        output = run()
        if engine == "native":
            small = x.detach()[:1, :, :7, :7].requires_grad_()
            assert torch.autograd.gradcheck(through, (small, weight, bias))
            assert torch.autograd.gradgradcheck(through, (small, weight, bias), fast_mode=True)
    with reference_only():
        expected = run()
    for a, b in zip(output, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert output[0].stride() == expected[0].stride()
