"""Blurred convolution and pooling against the two steps that define them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nearfar.errors import InputError
from nearfar.layers import AntialiasedConv2d, AntialiasedMaxPool2d

LINE = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)


def blurred(y, stride):
    """Binomial blur of what is there, then every stride-th sample; no padding."""
    channels = y.shape[1]
    kernel = (LINE[:, None] * LINE).expand(channels, 1, 3, 3)
    return F.conv2d(y, kernel, stride=stride, groups=channels)


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(7, 16), st.integers(7, 16)),
    kernel=st.sampled_from([(1, 1), (3, 3), (2, 4), (5, 3)]),
    stride=st.sampled_from([2, 3, (2, 1)]),
    padding=st.sampled_from([0, 1, (0, 2)]),
    groups=st.sampled_from([1, 2]),
)
def test_convolution_is_convolve_blur_and_leave_out(size, kernel, stride, padding, groups):
    torch.manual_seed(0)
    layer = AntialiasedConv2d(4, 6, kernel, stride, padding, groups=groups, bias=False).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    rows, columns = layer.padding
    # The plane goes on with zeros: one more sample of the dense convolution on every side.
    dense = F.conv2d(
        F.pad(x, (columns + 1, columns + 1, rows + 1, rows + 1)), layer.weight, groups=groups
    )
    torch.testing.assert_close(layer(x), blurred(dense, layer.stride))
    plain = nn.Conv2d(4, 6, kernel, stride, padding, groups=groups)
    assert layer(x).shape == plain(x.float()).shape


def test_convolution_shares_its_state_dict_and_its_gradients_are_right():
    layer = AntialiasedConv2d(2, 2, 3, 2, 1).double()
    nn.Conv2d(2, 2, 3, 2, 1).double().load_state_dict(layer.state_dict())
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    inputs = (x, layer.weight, layer.bias)
    assert torch.autograd.gradcheck(
        lambda x, w, b: torch.func.functional_call(layer, {"weight": w, "bias": b}, x), inputs
    )


def test_a_constant_stays_a_constant():
    layer = AntialiasedConv2d(1, 1, 1, 2, bias=False)
    nn.init.ones_(layer.weight)
    y = layer(torch.ones(1, 1, 9, 9))
    torch.testing.assert_close(y[..., 1:-1, 1:-1], torch.ones(1, 1, 3, 3))
    pool = AntialiasedMaxPool2d(2)
    torch.testing.assert_close(pool(torch.ones(1, 1, 9, 8)), torch.ones(1, 1, 4, 4))


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(5, 14), st.integers(5, 14)),
    kernel=st.sampled_from([2, 3, (3, 2)]),
    stride=st.sampled_from([2, 3, (1, 2)]),
    padding=st.sampled_from([0, 1]),
    ceil_mode=st.booleans(),
)
def test_pooling_is_all_maxima_blurred_and_left_out(size, kernel, stride, padding, ceil_mode):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    pool = AntialiasedMaxPool2d(kernel, stride, padding, ceil_mode=ceil_mode)
    shape = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil_mode)(x).shape
    output = pool(x)
    assert output.shape == shape
    dense = F.pad(F.max_pool2d(x, kernel, 1, padding), (1, 1, 1, 1), mode="replicate")
    expected = blurred(dense, stride)
    inside = (
        ...,
        slice(0, min(shape[-2], expected.shape[-2])),
        slice(0, min(shape[-1], expected.shape[-1])),
    )
    torch.testing.assert_close(output[inside], expected[inside])


@pytest.mark.parametrize("wrong", [{"dilation": 2}, {"padding_mode": "reflect"}])
def test_what_cannot_be_blurred_is_refused(wrong):
    with pytest.raises(InputError, match="AntialiasedConv2d cannot stand for this convolution"):
        AntialiasedConv2d(1, 1, 3, 2, 1, **wrong)


def test_a_blurred_maximum_has_no_index():
    with pytest.raises(InputError, match="have no index, got return_indices=True"):
        AntialiasedMaxPool2d(2, return_indices=True)
