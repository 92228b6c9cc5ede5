"""One net, any layer: parameters as stated, answers that follow, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from nearfar.errors import InputError
from nearfar.models import create_model
from nearfar.pyramid import Pyramid

PARAMETERS = {
    "standard": 206_954,
    "si": 206_954,
    "steerable": 206_954,
    "disco": 206_954,
    "dss": 206_954,
    "gaussian-derivative": 42_474,
    "sicnn": 206_954,
    "riesz": 42_474,
}


@pytest.mark.parametrize("layer", PARAMETERS)
def test_one_net_with_any_layer(layer):
    torch.manual_seed(0)
    net = create_model("scale_layer_digit", layer=layer, num_classes=10)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[layer] <= 500_000
    x = torch.randn(3, 1, 20, 17)
    loss = net(x).square().sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    net.eval()
    # Each image answers for itself, in whatever company; each of its levels met the same norm.
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]))
    maps = net.stages[0](net.stem(x))
    assert isinstance(maps, Pyramid) == (layer not in ("standard", "si", "riesz"))


def test_norm_and_relu_treat_every_level_alike():
    torch.manual_seed(0)
    net = create_model("scale_layer_digit", layer="disco", filter_scales=(1, 2)).eval()
    layer, rest = net.stages[0]
    levels = layer(torch.randn(2, 1, 12, 12))
    for level, expected in zip(rest(levels).levels, levels.levels, strict=True):
        torch.testing.assert_close(level, rest.module(expected))


def test_a_digit_half_as_large_is_the_level_below():
    """With exact layers, before pooling and borders: lifted levels move by one."""
    torch.manual_seed(0)
    net = create_model("scale_layer_digit", layer="disco", filter_scales=(1, 2)).eval()
    x = torch.randn(1, 1, 32, 32)
    near, far = net.stages[0](x), net.stages[0](x[..., ::2, ::2])
    torch.testing.assert_close(far.levels[0], near.levels[1][..., ::2, ::2])


def test_refusals():
    with pytest.raises(InputError, match="layer must be one of standard, si, .*, got 'none'"):
        create_model("scale_layer_digit", layer="none")
    with pytest.raises(InputError, match="'riesz' does not rescale filters, got filter_scales"):
        create_model("scale_layer_digit", layer="riesz", filter_scales=(1, 2))
