from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar.auditing.invariance import invariance_scores
from nearfar.errors import InputError
from nearfar.models import HierarchicalNet

IMAGES = torch.rand(200, 1, 6, 6, generator=torch.Generator().manual_seed(0))


class Peak(nn.Module):
    """The largest value anywhere: moving an image does not change it."""

    def forward(self, x):
        return x.flatten(1).amax(1, keepdim=True)


def moved(by):
    return lambda x: x.roll(by, dims=-1)


def test_a_neuron_that_does_not_care_scores_one_over_its_firing_rate():
    net = nn.Sequential(Peak())
    scores = invariance_scores(net, IMAGES, [moved(0), moved(1), moved(3)], ["0"])
    assert scores["0"] == pytest.approx(100.0)  # it fires for 2 of 200 images, and all their copies
    scores = invariance_scores(net, IMAGES, [moved(0), moved(1)], ["0"], firing=0.05)
    assert scores["0"] == pytest.approx(20.0)


def test_by_hand():
    """One unit a pixel; images are numbered by their brightness, copies fade by known amounts."""
    images = torch.arange(1.0, 101.0).view(100, 1, 1, 1).expand(100, 1, 1, 2).clone()
    net = nn.Sequential(nn.Identity())
    fade = torch.tensor([1.0, 0.985])  # the second pixel falls below its threshold

    def faded(x):
        return x * fade

    # Thresholds at 2 %: 99. Images 99 and 100 fire. Faded by 0.985: 97.5 and 98.5, neither does.
    scores = invariance_scores(net, images, [lambda x: x, faded], ["0"], firing=0.02, top=1.0)
    assert scores["0"] == pytest.approx((50.0 + 0.0) / 2)
    best = invariance_scores(net, images, [lambda x: x, faded], ["0"], firing=0.02, top=0.5)
    assert best["0"] == pytest.approx(50.0)
    # Faded by 0.9925 only image 99 falls silent: half of those that fired.
    fade[1] = 0.9925
    half = invariance_scores(net, images, [lambda x: x, faded], ["0"], firing=0.02, top=1.0)
    assert half["0"] == pytest.approx((50.0 + 25.0) / 2)


def test_ties_count_as_firing():
    """A neuron that is zero but for few images fires for all at threshold zero: it scores 1."""
    images = torch.zeros(100, 1, 1, 1)
    images[0] = 5.0
    net = nn.Sequential(nn.ReLU())
    scores = invariance_scores(net, images, [moved(0), moved(0)], ["0"], firing=0.02)
    assert scores["0"] == pytest.approx(1.0)


def test_channels_do_not_ask_a_thing_to_stay_in_its_place():
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU())
    torch.manual_seed(1)
    nn.init.uniform_(net[0].weight, 0.5, 1)
    shown = [moved(0), moved(1), moved(2)]
    whole = invariance_scores(net, IMAGES, shown, ["1"], neurons="channels")
    each = invariance_scores(net, IMAGES, shown, ["1"], neurons="units")
    assert whole["1"] == pytest.approx(100.0)
    assert each["1"] < 30


def test_the_model_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    net[1].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    invariance_scores(net, IMAGES, [moved(0), moved(1)], ["0", "1"])
    assert net.training
    assert net[0].training
    assert not net[1].training
    assert not net[0]._forward_hooks
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_layer_that_runs_at_several_scales_is_refused():
    inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    net = HierarchicalNet(inner, (1.0, 2.0))
    with pytest.raises(InputError, match="layer 'net.1' ran 2 times for an image"):
        invariance_scores(net, IMAGES, [moved(0), moved(1)], ["net.1"], neurons="channels")


def test_bad_input():
    net = nn.Sequential(nn.ReLU())
    two = [moved(0), moved(1)]
    with pytest.raises(InputError, match=r"layers must name modules of the network, got \['9'\]"):
        invariance_scores(net, IMAGES, two, ["9"])
    with pytest.raises(InputError, match="neurons must be one of"):
        invariance_scores(net, IMAGES, two, ["0"], neurons="cells")
    with pytest.raises(InputError, match="got firing=0.001, top=0.2, 200 images and 2 transf"):
        invariance_scores(net, IMAGES, two, ["0"], firing=0.001)
    with pytest.raises(InputError, match="200 images and 1 transformations"):
        invariance_scores(net, IMAGES, two[:1], ["0"])
