"""Conversion: what changes, what stays, and that every value is where it should be."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from nearfar.conversion import (
    Antialiasing,
    PyramidEnsemble,
    SILayers,
    WeightSharedStages,
    as_method,
    convert_network,
    plan_conversion,
)
from nearfar.errors import InputError
from nearfar.layers import AntialiasedConv2d, SIConv2d
from nearfar.models import HierarchicalNet, create_model


class Net(nn.Module):
    """One convolution used twice, a strided one, a 1×1, one of another make, and one with weight norm."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.again = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.same = self.again
        self.strided = nn.Conv2d(4, 6, 5, stride=2, padding=2)
        self.point = nn.Conv2d(6, 6, 1)
        self.own = Conv2dSame(6, 6, 3)
        self.normed = weight_norm(nn.Conv2d(6, 6, 3, padding=1))
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.strided(self.same(self.again(self.first(x))))
        return self.fc(self.normed(self.own(self.point(x))).mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def test_an_si_layer_over_scale_one_is_the_convolution(net):
    x = torch.randn(2, 3, 17, 12)
    twin, plan = convert_network(net, SILayers(scales=(1,)))
    assert [change.name for change in plan.changes] == ["first", "again", "strided"]
    assert type(twin.first) is SIConv2d
    torch.testing.assert_close(twin(x), net(x))
    assert type(net.first) is nn.Conv2d  # the original is as it was


def test_si_layers_are_those_built_by_hand(net):
    scales = (0.75, 1.0, 1.33)
    twin, _ = convert_network(net, SILayers(scales=scales))
    x = torch.randn(2, 3, 17, 12)
    by_hand = SIConv2d(3, 4, 3, padding=1, scales=scales)
    by_hand.load_state_dict(net.first.state_dict())
    torch.testing.assert_close(twin.first(x), by_hand(x))


def test_nothing_but_the_computation_changes(net):
    net.double().train()
    net.strided.eval()
    calls = []
    net.first.register_forward_hook(lambda *_: calls.append(1))
    twin, _ = convert_network(net, SILayers())
    assert twin.again is twin.same
    assert {k: id(v) for k, v in twin.state_dict(keep_vars=True).items()}.keys() == dict(
        net.state_dict()
    ).keys()
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[name], tensor, rtol=0, atol=0)
        assert twin.state_dict()[name].dtype == torch.float64
    assert sum(p.numel() for p in twin.parameters()) == sum(p.numel() for p in net.parameters())
    assert (twin.first.training, twin.strided.training) == (True, False)
    calls.clear()
    twin(torch.randn(1, 3, 16, 16, dtype=torch.float64)).sum().backward()
    assert calls == [1]
    assert twin.first.weight.grad is not None
    assert net.first.weight.grad is None


def test_what_is_left_is_told_with_the_reason(net):
    plan = plan_conversion(net, SILayers())
    left = {x.name: x.why for x in plan.left}
    assert left.keys() == {"point", "own", "normed"}
    assert "single points" in left["point"]
    assert left["own"].startswith("Conv2dSame computes in its own way")
    assert left["normed"].startswith("ParametrizedConv2d computes in its own way")


def test_the_older_weight_norm_is_left():
    with pytest.warns(FutureWarning):
        conv = torch.nn.utils.weight_norm(nn.Conv2d(3, 3, 3))
    plan = plan_conversion(nn.Sequential(conv, nn.Conv2d(3, 3, 3)), SILayers())
    assert [c.name for c in plan.changes] == ["1"]
    assert "computed from other tensors" in plan.left[0].why


def test_layers_are_chosen_by_patterns(net):
    def changed(*layers):
        return [c.name for c in plan_conversion(net, SILayers(layers=layers)).changes]

    assert changed("f*") == ["first"]
    assert changed("*", "!strided") == ["first", "again"]
    assert changed("!strided", "!first") == ["again"]
    assert changed("point") == ["point"]
    with pytest.raises(
        InputError, match=r"no layer of that kind is named like 'stage\*'; there are first, again"
    ):
        changed("stage*")


def test_a_network_that_is_a_convolution_itself():
    conv = nn.Conv2d(2, 3, 3, padding=1)
    twin, _ = convert_network(conv, SILayers(scales=(1,)))
    assert type(twin) is SIConv2d
    x = torch.randn(1, 2, 9, 9)
    torch.testing.assert_close(twin(x), conv(x))


@pytest.mark.parametrize("method", ["si", "wsms", "antialias"])
def test_what_cannot_be_converted_is_told_what_can(method):
    vit = timm.create_model("test_vit")
    with pytest.raises(InputError, match="methods that can: pyramid-ensemble with window='fixed'"):
        convert_network(vit, method)


def test_a_network_of_one_size_is_asked_through_a_window():
    torch.manual_seed(0)
    vit = timm.create_model("test_vit", num_classes=5).eval()
    side = vit.pretrained_cfg["input_size"][1]
    with pytest.raises(InputError, match="one size only; give window='fixed'"):
        convert_network(vit, PyramidEnsemble(), side)
    twin, _ = convert_network(vit, PyramidEnsemble(window="fixed"), side)
    assert twin(torch.rand(2, 3, side, side)).shape == (2, 5)
    with pytest.raises(InputError, match="give size"):
        convert_network(vit, PyramidEnsemble(window="fixed"))


def test_antialiasing_takes_strides_of_convolutions_and_pools():
    resnet = timm.create_model("resnet10t", num_classes=5).eval()
    plan = plan_conversion(resnet, Antialiasing())
    assert plan.changes
    twin, _ = convert_network(resnet, Antialiasing())
    for name, module in twin.named_modules():
        if type(module) is nn.Conv2d:
            assert module.stride == (1, 1) or any(x.name == name for x in plan.left)
    again = plan_conversion(
        nn.Sequential(AntialiasedConv2d(1, 1, 3, 2), nn.Conv2d(1, 1, 3, 2)), Antialiasing()
    )
    assert again.left[0].why == "it is antialiased already"


def test_an_ensemble_over_scale_one_answers_as_the_network():
    torch.manual_seed(0)
    net = create_model("cnn_small", num_classes=4, in_chans=1).eval()
    x = torch.rand(3, 1, 28, 28)
    for reduction in ("max", "mean", "logsumexp", "learned"):
        twin, _ = convert_network(net, PyramidEnsemble(scales=(1,), reduction=reduction))
        torch.testing.assert_close(twin(x), net(x).log_softmax(1))
        assert not twin.training


def test_a_learnt_vote_begins_as_the_mean_of_probabilities():
    torch.manual_seed(0)
    net = create_model("cnn_small", num_classes=4, in_chans=1).eval().double()
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    scales = (0.5, 1, 2)
    twin, _ = convert_network(net, PyramidEnsemble(scales=scales, reduction="learned"))
    each = [convert_network(net, PyramidEnsemble(scales=(s,)))[0](x).exp() for s in scales]
    torch.testing.assert_close(twin(x).exp(), torch.stack(each).mean(0))
    assert twin.weights.dtype == torch.float64
    with torch.no_grad():
        twin.weights.copy_(torch.tensor([-50.0, 50.0, -50.0]))
    torch.testing.assert_close(twin(x).exp(), each[1])
    assert sum(p.numel() for p in twin.parameters()) == 3 + sum(p.numel() for p in net.parameters())


def test_what_is_over_a_pyramid_is_not_put_over_another():
    net = create_model("hierarchical_cnn_small")
    with pytest.raises(InputError, match=r"over a pyramid of scales \(0.5, .*\) already"):
        convert_network(net, PyramidEnsemble())
    assert isinstance(net, HierarchicalNet)


@pytest.mark.parametrize("name", ["resnet20_cifar", "test_resnet", "wide_resnet50_2"][:2])
def test_a_weight_shared_net_answers_as_before(name):
    torch.manual_seed(0)
    net = create_model(name, num_classes=6).eval()
    twin, plan = convert_network(net, WeightSharedStages(stages=2))
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(twin(x), net(x))
    assert "not read until" in plan.notes[0]
    # The new stages are there all the same, and training reaches their part of the classifier.
    twin.train()(x).square().sum().backward()
    grad = twin.get_classifier().weight.grad
    assert grad[:, net.get_classifier().in_features :].abs().sum() > 0


def test_a_new_integration_says_that_it_needs_training():
    net = create_model("resnet20_cifar")
    _, plan = convert_network(net, WeightSharedStages(integration="conv1x1"))
    assert "random weights" in plan.notes[0]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"method": "magic"},
            "method must be one of antialias, pyramid-ensemble, fixres, si, wsms",
        ),
        (
            {"method": "si", "reduction": "max"},
            "method 'si' has no reduction, got reduction='max'; it has layers, scales; it belongs to pyra",
        ),
        ({"method": "wsms", "scales": (1, 2)}, "belongs to pyramid-ensemble, si"),
        ({"method": "wsms", "stages": 1}, "stages must be at least 2"),
        ({"method": "si", "scales": (0,)}, "positive and finite"),
        (
            {"method": "pyramid-ensemble", "reduction": "loud"},
            "reduction must be one of max, mean, logsumexp, learned",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(record, message):
    with pytest.raises(InputError, match=message):
        as_method(record)


def test_features_that_are_no_maps_are_refused():
    """timm's HRNet hands its head a list of maps."""
    network = timm.create_model("hrnet_w18_small", num_classes=3)
    with pytest.raises(InputError, match=r"not maps \[B, C, H, W\] but a list; .*methods that can"):
        convert_network(network, "wsms", 64)
