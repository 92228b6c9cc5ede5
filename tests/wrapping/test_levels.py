"""The levels that there are: sizes, costs, and what is left out."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import nearfar
from nearfar.data import Normalisation
from nearfar.errors import InputError
from nearfar.models import SmallCNN
from nearfar.wrapping import candidate_levels


def test_each_size_is_one_level_and_that_is_said():
    net = SmallCNN(num_classes=4, in_chans=1)
    levels = candidate_levels(net, (28, 28), 1, scales=(0.5, 0.99, 1.01, 2.0))
    assert [level.scale for level in levels.levels] == [0.5, 1.0, 2.0]
    assert levels.notes == (
        "Levels 0.99, 1, 1.01 come out at 28×28 pixels: they are one level, 1.",
    )
    assert [level.size for level in levels.levels] == [(14, 14), (28, 28), (28, 28)]
    assert levels.levels[levels.base].scale == 1


def test_costs_are_those_that_are_counted():
    net = SmallCNN(num_classes=4, in_chans=3)
    levels = candidate_levels(net, (32, 32), 3, scales=(0.5, 2.0))
    whole = nearfar.count(net, (3, 32, 32)).multiplications
    half = nearfar.count(net, (3, 16, 16)).multiplications
    assert [level.cost for level in levels.levels] == pytest.approx([half / whole, 1, 1])
    everything = candidate_levels(net, (32, 32), 3, scales=(2.0,), window="all")
    double = nearfar.count(net, (3, 64, 64)).multiplications
    assert [level.cost for level in everything.levels] == pytest.approx([1, double / whole])


def test_a_level_answers_as_the_network_does_to_the_level():
    torch.manual_seed(0)
    net = SmallCNN(num_classes=4, in_chans=3)
    figures = Normalisation((0.4, 0.5, 0.6), (0.2, 0.3, 0.1))
    half = candidate_levels(net, (32, 32), 3, figures, (0.5,)).levels[0]
    assert net.training
    half.network.eval()
    images = torch.rand(3, 3, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (figures.mean, figures.std))
    normal = (images - mean) / std
    small = nn.functional.interpolate(normal, size=(16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(half.network(images), net(small).log_softmax(1))


class Large(nn.Module):
    """Refuses images of less than 20 pixels a side."""

    def __init__(self):
        super().__init__()
        self.net = SmallCNN(num_classes=4, in_chans=3)

    def forward(self, x):
        if x.shape[-1] < 20:
            raise ValueError("too small")
        return self.net(x)


def test_a_level_that_cannot_be_made_is_said():
    levels = candidate_levels(Large(), (32, 32), 3, scales=(0.01, 0.5, 0.75))
    assert [level.scale for level in levels.levels] == [0.75, 1.0]
    assert levels.notes == (
        "The level 0.01 is left out: it would have no pixel of 32.",
        "The level 0.5 is left out: the network does not take 16×16 pixels (too small).",
    )


def test_a_network_of_one_size_looks_through_a_window():
    net = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=48, num_heads=2, num_classes=4
    )
    levels = candidate_levels(net, (32, 32), 3, scales=(0.5, 2.0))
    assert levels.window == "fixed"
    assert [level.size for level in levels.levels] == [(32, 32)] * 3
    assert [level.cost for level in levels.levels] == [1, 1, 1]
    assert "takes images of one size" in levels.notes[0]
    with pytest.raises(InputError, match="give window='fixed'"):
        candidate_levels(net, (32, 32), 3, scales=(0.5, 2.0), window="image")
