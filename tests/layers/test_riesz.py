"""Riesz transforms against a Fourier transform in loops, and what follows from their formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nearfar.counting import count
from nearfar.errors import InputError
from nearfar.layers import RieszConv2d


def naive_transforms(x):
    """The five transforms of one periodic map, by a discrete Fourier transform written out."""
    height, width = x.shape
    rows, columns = (
        np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in (height, width)
    )
    spectrum = rows @ x @ columns
    maps = np.zeros((5, height, width))
    for a in range(height):
        for b in range(width):
            u = (a if a <= height // 2 else a - height) / height
            v = (b if b <= width // 2 else b - width) / width
            r = np.hypot(u, v)
            if r == 0:
                continue
            odd_u, odd_v = (0.0 if w == 0.5 else w for w in (u, v))
            wave = (
                np.outer(rows.conj()[:, a], columns.conj()[b]) / (height * width) * spectrum[a, b]
            )
            factors = (
                -1j * odd_u / r,
                -1j * odd_v / r,
                -u * u / r**2,
                -odd_u * odd_v / r**2,
                -v * v / r**2,
            )
            maps += np.stack([(f * wave).real for f in factors])
    return maps


@pytest.mark.parametrize("size", [(6, 7), (8, 5)])
def test_it_is_the_naive_definition(size):
    layer = RieszConv2d(2, 3, padding_mode="circular", dtype=torch.float64)
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    maps = np.stack([naive_transforms(channel) for channel in x[0].numpy()])
    expected = np.einsum("oif,ifyx->oyx", layer.weight.detach().numpy(), maps)
    expected += layer.bias.detach().numpy()[:, None, None]
    torch.testing.assert_close(layer(x)[0], torch.tensor(expected))


def test_padding_is_a_larger_map():
    layer = RieszConv2d(1, 2, dtype=torch.float64)
    around = RieszConv2d(1, 2, padding_mode="circular", dtype=torch.float64)
    around.load_state_dict(layer.state_dict())
    x = torch.randn(1, 1, 6, 8, dtype=torch.float64)
    wide = nn.functional.pad(x, (4, 4, 3, 3))
    torch.testing.assert_close(layer(x), around(wide)[..., 3:-3, 4:-4])
    reflect = RieszConv2d(1, 2, padding_mode="reflect", dtype=torch.float64)
    reflect.load_state_dict(layer.state_dict())
    wide = nn.functional.pad(x, (4, 4, 3, 3), mode="reflect")
    torch.testing.assert_close(reflect(x), around(wide)[..., 3:-3, 4:-4])


def test_the_second_transforms_along_both_axes_add_up_to_minus_the_map():
    layer = RieszConv2d(1, 1, padding_mode="circular", dtype=torch.float64)
    x = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    maps = layer.transforms(x)
    torch.testing.assert_close(maps[:, :, 2] + maps[:, :, 4], x.mean((2, 3), keepdim=True) - x)
    # A cosine along the rows becomes a sine.
    at = torch.arange(16, dtype=torch.float64) * (2 * torch.pi * 3 / 16)
    wave = at.cos()[:, None].expand(16, 16)[None, None]
    torch.testing.assert_close(layer.transforms(wave)[0, 0, 0], at.sin()[:, None].expand(16, 16))


def test_stride_groups_order_and_shapes():
    x = torch.randn(2, 4, 9, 7)
    layer = RieszConv2d(4, 6, stride=2, groups=2, order=1)
    assert layer.weight.shape == (6, 2, 2)
    y = layer(x)
    assert y.shape == (2, 6, 5, 4)
    one = RieszConv2d(4, 6, groups=2, order=1)
    one.load_state_dict(layer.state_dict())
    torch.testing.assert_close(y, one(x)[..., ::2, ::2])
    torch.testing.assert_close(one(x[0]), one(x)[0])
    half = RieszConv2d(2, 2)
    halves = RieszConv2d(4, 4, groups=2)
    halves.weight.data, halves.bias.data = (
        half.weight.data.repeat(2, 1, 1),
        half.bias.data.repeat(2),
    )
    torch.testing.assert_close(halves(x), torch.cat([half(x[:, :2]), half(x[:, 2:])], 1))
    (row,) = count(nn.Sequential(RieszConv2d(3, 4)), (3, 8, 8)).rows
    assert (row.weights, row.parameters, row.multiplications) == (60, 64, 60 * 64)
    assert row.field == (8, 8)


def test_gradients():
    layer = RieszConv2d(2, 2, dtype=torch.float64)
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *layer.parameters()))


def test_refusals():
    for more in ({"kernel_size": 3}, {"padding": 1}, {"dilation": 2}):
        with pytest.raises(InputError, match="filters have no size, so kernel_size, padding"):
            RieszConv2d(1, 1, **more)
    with pytest.raises(InputError, match="groups=2 must be at least 1 and divide in_channels=3"):
        RieszConv2d(3, 4, groups=2)
    with pytest.raises(InputError, match="padding_mode must be one of"):
        RieszConv2d(1, 1, padding_mode="none")
    with pytest.raises(InputError, match="order must be 1 or 2, got 3"):
        RieszConv2d(1, 1, order=3)
    with pytest.raises(InputError, match="needs a floating-point map"):
        RieszConv2d(1, 1)(torch.zeros(3, dtype=torch.int64))
    assert "padding_mode='zeros', order=2" in repr(RieszConv2d(1, 2, bias=False))
