"""Networks as they are out there: a conversion has an effect, or is refused with the reason."""

from __future__ import annotations

import types

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from nearfar.classifiers import InputOptions
from nearfar.conversion import (
    Antialiasing,
    PyramidEnsemble,
    SILayers,
    WeightSharedStages,
    convert_network,
    plan_conversion,
)
from nearfar.deploy import convert
from nearfar.errors import InputError
from nearfar.layers import SIConv2d


class Net(nn.Module):
    """Two convolutions, called as ``how`` says, or the second alone so."""

    def __init__(self, how, first="called"):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 5, 3, padding=1)
        self.how = (first, how)
        self.plain_list = [self.a, self.b]

    def forward(self, x):
        for conv, listed, how in zip((self.a, self.b), self.plain_list, self.how, strict=True):
            if how == "called":
                x = conv(x)
            elif how == "forward":
                x = conv.forward(x)
            elif how == "functional":
                x = F.conv2d(x, conv.weight, conv.bias, padding=1)
            elif how == "private":
                x = conv._conv_forward(x, conv.weight, conv.bias)
            elif how == "listed":
                x = listed(x)
        return x.mean((2, 3))


@pytest.mark.parametrize("how", ["functional", "private", "listed"])
def test_a_conversion_without_effect_is_refused(how):
    with pytest.raises(InputError, match=r"would change nothing: .* without calling a, b;"):
        convert_network(Net(how, first=how), "si")
    with pytest.raises(InputError, match="would change nothing"):
        convert(Net(how, first=how), "si", inputs=InputOptions(size=16), out=None)


@pytest.mark.parametrize("how", ["functional", "private", "listed"])
def test_layers_that_did_not_run_are_reported(how, tmp_path):
    net = Net(how)
    twin, plan = convert_network(net, "si")
    assert plan.idle == ("b",)
    assert "1 changed layer did not run on a trial image (b)" in plan.notes[-1]
    x = torch.rand(2, 3, 16, 16)
    by_hand = SIConv2d(3, 4, 3, padding=1, scales=(0.75, 1.0, 1.33))
    by_hand.load_state_dict(net.a.state_dict())
    torch.testing.assert_close(twin(x), net.b(by_hand(x)).mean((2, 3)))
    result = convert(net, "si", inputs=InputOptions(size=16), out=tmp_path / "twin")
    assert "did not run on a trial image (b)" in (tmp_path / "twin" / "report.md").read_text()
    assert result.as_dict()["idle"] == ["b"]


@pytest.mark.parametrize("how", ["called", "forward"])
def test_a_layer_whose_forward_is_called_runs(how):
    twin, plan = convert_network(Net(how, first=how), "si")
    assert plan.idle == ()
    assert plan.notes == ()
    assert "forward" not in vars(twin.a)  # the trial leaves nothing behind


def test_logits_that_do_not_move_are_reported():
    class Unread(Net):
        def forward(self, x):
            return 0 * super().forward(x) + x.mean((2, 3)).sum(1, keepdim=True)

    _, plan = convert_network(Unread("called"), "si")
    assert "answers exactly as the original" in plan.notes[-1]
    _, plan = convert_network(Net("called"), SILayers(scales=(1,)))
    assert plan.notes == ()  # over scale 1 alone nothing has to move


def test_a_trial_changes_nothing():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(2))
    net.append(nn.AdaptiveAvgPool1d(1)).append(nn.Flatten()).train()
    net[1].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    random = torch.get_rng_state()
    twin, _ = convert_network(net, "si")
    assert torch.equal(torch.get_rng_state(), random)
    for network in (net, twin):
        assert [m.training for m in network] == [True, False, True, True, True, True]
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_a_conversion_that_fails_on_the_networks_own_images_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 4, 9), nn.Conv2d(4, 4, 8), nn.Flatten())
    with pytest.raises(InputError, match="does not take images of 16×16, which the original takes"):
        convert_network(net, SILayers(scales=(0.25, 1), layers=("*",)), 16)


def test_a_forward_replaced_on_one_layer_is_not_lost():
    net = Net("called")
    net.a.forward = types.MethodType(lambda self, x: 2 * nn.Conv2d.forward(self, x), net.a)
    plan = plan_conversion(net, "si")
    assert [c.name for c in plan.changes] == ["b"]
    assert plan.left[0].why == "its forward was replaced on this one layer, which would be lost"
    twin, _ = convert_network(net, SILayers(scales=(1,)))
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(twin(x), net(x))
    net.b.forward = types.MethodType(lambda self, x: nn.Conv2d.forward(self, x), net.b)
    with pytest.raises(InputError, match="a .* stays: its forward was replaced"):
        convert_network(net, "si")


@pytest.mark.parametrize("method", [SILayers(), PyramidEnsemble()])
def test_a_forward_that_would_go_on_calling_the_original_is_refused(method):
    net = Net("called")
    net.forward = lambda x: net.b(net.a(x)).mean((2, 3))
    with pytest.raises(InputError, match="forward of Net was replaced by a function"):
        convert_network(net, method)


def test_a_forward_bound_to_the_network_goes_along():
    net = Net("called")
    net.forward = types.MethodType(lambda self, x: 3 * self.a(x).mean((2, 3)), net)
    twin, _ = convert_network(net, SILayers(scales=(1,), layers=("a",)))
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(twin(x), net(x))
    with torch.no_grad():
        net.a.weight.zero_()
    assert not torch.equal(twin(x), net(x))  # it computes with weights of its own


def test_wsms_refuses_a_forward_that_it_would_lose():
    net = timm.create_model("test_resnet", num_classes=5)
    net.forward = types.MethodType(lambda self, x: type(self).forward(self, x), net)
    with pytest.raises(InputError, match="the forward that replaced its class's would be lost"):
        convert_network(net, WeightSharedStages())


def with_old_weight_norm(conv):
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(conv)


def pruned(conv):
    return prune.l1_unstructured(conv, "weight", amount=0.5)


@pytest.mark.parametrize("change", [with_old_weight_norm, pruned, nn.utils.spectral_norm])
def test_a_weight_that_a_hook_computes_stays_and_the_rest_is_converted(change):
    net = Net("called").eval()
    change(net.b)
    x = torch.rand(2, 3, 16, 16)
    before = net(x)
    assert not net.b.weight.is_leaf  # which torch's deep copy refuses
    twin, plan = convert_network(net, SILayers(scales=(1,)))
    assert [c.name for c in plan.changes] == ["a"]
    assert plan.left[0].why.endswith("remove the weight norm or the pruning first")
    torch.testing.assert_close(twin(x), before)
    # The copy's weight is computed from the copy's own tensors.
    twin(x).square().sum().backward()
    sources = dict(twin.b.named_parameters())
    source = sources.get("weight_orig", sources.get("weight_v"))
    assert source.grad.abs().sum() > 0
    assert all(p.grad is None for p in net.parameters())
    whole, _ = convert_network(net, PyramidEnsemble(scales=(1,)), 16)
    torch.testing.assert_close(whole(x), before.log_softmax(1))


@pytest.mark.parametrize("change", [with_old_weight_norm, pruned])
def test_of_such_weights_alone_nothing_can_be_converted(change):
    net = nn.Sequential(change(nn.Conv2d(3, 4, 3)))
    with pytest.raises(InputError, match=r"0 \(Conv2d 3×3\) stays: its weight is computed from"):
        convert_network(net, "si")


def test_tensors_that_hang_on_a_graph_are_named():
    net = Net("called")
    net.b.features = net.a(torch.rand(1, 3, 8, 8))
    with pytest.raises(InputError, match=r"b.features is a tensor .* hangs on their graph; detach"):
        convert_network(net, "si")
    del net.b.features
    net.cache = [net.a(torch.rand(1, 3, 8, 8))]
    with pytest.raises(InputError, match="cannot be copied: Only Tensors created explicitly"):
        convert_network(net, "si")


@pytest.mark.parametrize("window", ["image", "all"])
def test_a_vit_of_torchvision_is_refused_without_a_window_of_its_size(window):
    torch.manual_seed(0)
    vit = torchvision.models.VisionTransformer(32, 16, 1, 2, 16, 32, num_classes=5).eval()
    nn.init.normal_(vit.heads.head.weight)
    method = PyramidEnsemble(scales=(0.5, 1, 1.5), window=window)
    for side in (None, 32):
        with pytest.raises(InputError, match=r"of 32×32, but not of 16×16.*give window='fixed'"):
            plan_conversion(vit, method, side)
    with pytest.raises(InputError, match="methods that can: pyramid-ensemble with window='fixed'"):
        plan_conversion(vit, "antialias")
    twin, _ = convert_network(vit, PyramidEnsemble(scales=(1,), window="fixed"), 32)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(twin(x), vit(x).log_softmax(1))


def test_a_network_of_any_size_is_not_refused_for_a_size_that_it_takes():
    plan = plan_conversion(timm.create_model("test_resnet"), PyramidEnsemble(), 64)
    assert plan.changes[0].name == ""
    _, plan = convert_network(timm.create_model("test_resnet"), Antialiasing(), 64)
    assert plan.idle == ()
