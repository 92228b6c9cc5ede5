from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from auditing.made import coloured
from torch import nn

from nearfar.auditing import AuditSpec, audit, invariance_scores
from nearfar.auditing.layers import map_errors
from nearfar.classifiers import Classifier, InputSpec
from nearfar.data import LabelledImages, ScaleProtocol
from nearfar.data.splits import stratified_order
from nearfar.errors import InputError
from nearfar.layers import SIConv2d, relative_errors
from nearfar.models import HierarchicalNet


class Net(nn.Module):
    """A 1×1 convolution, which follows the image, a 3×3 one, and what cannot be measured."""

    def __init__(self):
        super().__init__()
        self.point = nn.Conv2d(3, 4, 1)
        self.act = nn.ReLU(inplace=True)
        self.wide = nn.Conv2d(4, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 1)
        self.idle = nn.Conv2d(3, 3, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.wide(self.act(self.point(x)))
        return self.head(self.pool(self.twice(self.twice(x))).flatten(1))


def textured(count=120, side=32):
    draw = torch.Generator().manual_seed(0)
    rough = torch.rand(count, 3, 8, 8, generator=draw)
    smooth = nn.functional.interpolate(rough, (side, side), mode="bicubic").clamp(0, 1)
    return LabelledImages(smooth, torch.arange(count) % 3, ("a", "b", "c"), test_from=0)


def opened(net, canvas=32, content=32):
    shown = ScaleProtocol(canvas, content, test_scales=(0.25, 0.5, 1.0, 2.0))
    return Classifier(InputSpec("net", 3, shown, 3), net, net)


def test_layers_by_hooks():
    torch.manual_seed(0)
    net = Net().train()
    found = audit(opened(net), textured(), AuditSpec(layers=True, flips=0)).only.layers
    assert found.names == ("point", "wide")
    assert found.left_out == {
        "twice": "it runs 2 times an image, as inside a net over a pyramid",
        "idle": "it does not run",
    }
    assert found.scales == (0.5, 2.0)
    assert found.images == 120
    (point, wide) = (torch.tensor(errors) for errors in found.equivariance)
    assert bool((point < 0.04).all()), point
    assert bool((wide > 2 * point).all()), (point, wide)
    read = textured().images[stratified_order(textured().labels)]
    shown = [partial(opened(net).input_spec.protocol.render, scale=s) for s in (1.0, 0.5, 2.0)]
    scores = invariance_scores(net, read, shown, ["point", "wide"], neurons="channels")
    assert found.invariance == pytest.approx(tuple(scores.values()))
    assert net.training
    assert not any(m._forward_hooks for m in net.modules())


def test_layers_by_name():
    found = audit(
        opened(Net()), textured(), AuditSpec(layers=("p*", "act", "head"), flips=0)
    ).only.layers
    assert found.names == ("point", "act", "pool")
    assert found.left_out == {"head": "it does not return one map"}
    assert all(math.isnan(e) for e in found.equivariance[2])  # one sample: nothing to compare
    with pytest.raises(
        InputError, match=r"no layer's name matches 'conv\*'; there are point, act, wi"
    ):
        audit(opened(Net()), textured(), AuditSpec(layers=("conv*",)))


def test_many_layers_are_spread_evenly():
    many = nn.Sequential(
        *[nn.Conv2d(3, 3, 1) for _ in range(47)], nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    found = audit(
        opened(many), textured(100), AuditSpec(scales=(0.5, 1), layers=True, flips=0)
    ).only.layers
    assert found.names == tuple(str(i) for i in range(0, 47, 2))


def test_a_net_over_a_pyramid_says_why_there_is_nothing():
    inner = nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    net = HierarchicalNet(inner, (1.0, 2.0))
    found = audit(opened(net), textured(), AuditSpec(layers=True, flips=0)).only.layers
    assert found.names == ()
    assert found.left_out == {"net.0": "it runs 2 times an image, as inside a net over a pyramid"}


def test_too_few_images_and_nothing_to_look_inside_of():
    few = audit(opened(Net()), coloured(6), AuditSpec(layers=True, flips=0)).only.layers
    assert "needs 20 images" in few.left_out["all layers"]
    bare = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    none = audit(opened(bare), textured(30), AuditSpec(layers=True, flips=0)).only.layers
    assert none.left_out == {"all layers": "there is no convolution among its modules"}
    input_spec = opened(bare).input_spec
    assert (
        audit(
            Classifier(input_spec, bare), textured(30), AuditSpec(layers=True, flips=0)
        ).only.layers
        is None
    )


def test_a_scale_invariant_layer_counts_as_one():
    torch.manual_seed(0)
    net = nn.Sequential(
        SIConv2d(3, 4, 3, padding=1), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    found = audit(
        opened(net), textured(100), AuditSpec(scales=(0.5, 1), layers=True, flips=0)
    ).only.layers
    assert found.names == ("0",)
    assert not found.left_out


def test_relative_errors_by_hand():
    expected = torch.ones(2, 1, 8, 8)
    moved = expected.clone()
    moved[0, 0, 4, 4] = 4.0  # inside: six by six ones are compared
    moved[1, 0, 0, :] = 99.0  # at the border: left out
    assert relative_errors(moved, expected).tolist() == pytest.approx([3 / 6, 0])
    assert bool(relative_errors(moved, torch.zeros_like(moved)).isinf().all())


def test_maps_are_compared_where_content_lies():
    torch.manual_seed(0)
    first = torch.rand(3, 2, 16, 16)
    moved = torch.full((3, 2, 16, 16), 100.0)
    moved[..., 4:12, 4:12] = first[..., 4:12, 4:12]
    found = map_errors(first, moved, 1.0, 0.5)
    assert float(found.max()) < 1e-5
    assert float(map_errors(first, moved, 1.0, 1.0).min()) > 1
    assert map_errors(first[..., :2, :2], moved[..., :2, :2], 0.5, 0.5) is None
