from __future__ import annotations

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nearfar.errors import InputError
from nearfar.layers import ScaleConv2d, ScalePool
from nearfar.pyramid import collapse, expand


@given(
    extent=st.integers(1, 3),
    groups=st.sampled_from([1, 2]),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    valid=st.booleans(),
    size=st.tuples(st.integers(8, 12), st.integers(8, 12)),
)
def test_it_is_the_naive_definition(extent, groups, stride, padding, valid, size):
    """y_s is the sum over k of W_k convolved with level s + k, brought onto level s."""
    scales = (1, 0.5, 0.4)
    layer = ScaleConv2d(
        4,
        2,
        3,
        stride,
        padding,
        groups=groups,
        scale_extent=extent,
        scale_padding="valid" if valid else "end",
        dtype=torch.float64,
    )
    x = torch.randn(1, 4, *size, dtype=torch.float64)
    p = expand(x, scales)
    output = layer(p)
    assert len(output) == (3 - extent + 1 if valid else 3)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    for s, level in enumerate(output.levels):
        h, w = p.levels[s].shape[-2:]
        total = 0.0
        for k in range(min(extent, 3 - s)):
            other = p.levels[s + k][0].numpy()
            brought = np.stack([naive.resize(channel, h, w, True) for channel in other])
            total = total + naive.convolve(
                brought, weight[:, :, k], None, (stride,) * 2, ((padding,) * 2,) * 2, (1, 1), groups
            )
        torch.testing.assert_close(level[0], torch.tensor(total + bias[:, None, None]))


def test_an_extent_of_one_is_the_plain_convolution_on_every_level():
    layer = ScaleConv2d(3, 4, 3, padding=1, scale_extent=1)
    p = expand(torch.randn(2, 3, 12, 10), (1, 0.5))
    for level, image in zip(layer(p).levels, p.levels, strict=True):
        expected = nn.functional.conv2d(image, layer.weight[:, :, 0], layer.bias, padding=1)
        torch.testing.assert_close(level, expected)


def test_what_moves_one_level_down_moves_its_answer_one_level_down():
    """Sliding over scale: the same three levels, one octave farther, give the same answers."""
    layer = ScaleConv2d(1, 3, 3, padding=1, scale_extent=2, scale_padding="valid")
    x = torch.randn(1, 1, 32, 32)
    near, far = expand(x, (1, 0.5, 0.25)), expand(x, (0.5, 0.25, 0.125))
    torch.testing.assert_close(layer(near).levels[1], layer(far).levels[0], atol=2e-2, rtol=0.2)


def test_layers_stack_and_pool():
    net = nn.Sequential(
        ScaleConv2d(1, 4, 3, stride=2, padding=1), ScaleConv2d(4, 2, 3, padding=1), ScalePool("max")
    )
    x = torch.randn(2, 1, 16, 12, requires_grad=True)
    y = net(expand(x, (1, 0.7, 0.5)))
    assert y.shape == (2, 2, 8, 6)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_scale_pool_is_collapse():
    p = expand(torch.randn(1, 2, 8, 8), (1, 0.5))
    for how in ("max", "mean", "concat"):
        assert torch.equal(ScalePool(how)(p), collapse(p, how))


def test_gradients():
    layer = ScaleConv2d(2, 2, 3, padding=1, dtype=torch.float64)
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(expand(x, (1, 0.5))).levels, (x,))


def test_repr_and_refusals():
    assert "scale_extent=2, scale_padding='end'" in repr(ScaleConv2d(3, 4, 3))
    assert ScaleConv2d(3, 4, 3, bias=False).bias is None
    with pytest.raises(InputError, match="takes a Pyramid of maps, got Tensor"):
        ScaleConv2d(3, 4, 3)(torch.zeros(1, 3, 8, 8))
    p = expand(torch.zeros(1, 3, 8, 8), (1, 0.5))
    with pytest.raises(InputError, match="over 3 levels does not fit a pyramid of 2"):
        ScaleConv2d(3, 4, 3, scale_extent=3, scale_padding="valid")(p)
    with pytest.raises(InputError, match=r"kernel is larger than level 1 \(4, 4\) with"):
        ScaleConv2d(3, 4, 5)(p)
    with pytest.raises(InputError, match="scale_padding must be 'end' or 'valid', got 'same'"):
        ScaleConv2d(3, 4, 3, scale_padding="same")(p)
    with pytest.raises(InputError, match="groups=2 must divide"):
        ScaleConv2d(3, 4, 3, groups=2)
    with pytest.raises(InputError, match="scale_extent=0"):
        ScaleConv2d(3, 4, 3, scale_extent=0)
    with pytest.raises(InputError, match="how must be one of"):
        ScalePool("median")
