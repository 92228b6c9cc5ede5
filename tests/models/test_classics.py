"""The older networks' own parts, each against loops or against somebody else's definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nearfar import load_weights
from nearfar.models import create_model
from nearfar.models.heads import DenseHead
from nearfar.models.lenet import ScaledTanh, Subsampling, TableConv2d


def test_local_response_normalisation_is_equation_1():
    lrn = create_model("alexnet_two_tower").stages[0].towers[0][2]
    a = torch.randn(1, 48, 2, 3, dtype=torch.float64) * 30
    expected = torch.empty_like(a)
    for i in range(48):
        near = range(max(0, i - 2), min(47, i + 2) + 1)
        squares = sum(a[:, j] ** 2 for j in near)
        expected[:, i] = a[:, i] / (2 + 1e-4 * squares) ** 0.75
    torch.testing.assert_close(lrn(a), expected)


def test_alexnet_s_towers_meet_where_the_figure_says():
    torch.manual_seed(0)
    model = create_model("alexnet_two_tower").eval()
    x = torch.randn(1, 3, 224, 224)
    pair = (x, x)
    for i, stage in enumerate(model.stages):
        changed = (pair[0], pair[1] + 1)
        alone = torch.equal(stage(pair)[0], stage(changed)[0])
        # Layer 1 is asked with the image, so its towers read the same; 2, 4 and 5 their own; 3 both.
        assert alone == (i != 2), i
        pair = stage(pair)
    assert model.forward_features(x).shape == (1, 256, 6, 6)


def test_alexnet_first_weights():
    torch.manual_seed(0)
    model = create_model("alexnet_two_tower")
    for i, stage in enumerate(model.stages):
        for tower in stage.towers:
            assert float(tower[0].weight.detach().std()) == pytest.approx(0.01, rel=0.05)
            assert bool((tower[0].bias == float(i in (1, 3, 4))).all())
    dropped = [type(m).__name__ for m in model.head.modules() if isinstance(m, nn.Dropout)]
    assert len(dropped) == 4  # two dense layers, in each tower
    assert not model.get_classifier().bias.any()


def test_alexnet_s_towers_are_placed_on_two_devices():
    model = create_model("alexnet_two_tower", devices=("cpu", "meta"), num_classes=5)
    for layer in (*model.stages, *model.head.hidden):
        one, two = (next(tower.parameters()).device.type for tower in layer.towers)
        assert (one, two) == ("cpu", "meta")
    assert model.get_classifier().weight.device.type == "cpu"
    assert model.reset_classifier(3) is None
    assert model.get_classifier().weight.device.type == "cpu"
    model.to("meta")
    assert {p.device.type for p in model.parameters()} == {"meta"}
    # Every tower's input is brought to it.
    assert model(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 3)


def test_table_convolution_is_a_masked_convolution():
    table = [(0, 2), (1,), (0, 1, 2)]
    layer = TableConv2d(table, 3, stride=2, padding=1).double()
    full = nn.Conv2d(3, 3, 3, stride=2, padding=1).double()
    rest = iter(layer.weight)
    with torch.no_grad():
        layer.bias.normal_()
        full.weight.zero_()
        full.bias.copy_(layer.bias)
        for o, row in enumerate(table):
            for i in row:
                full.weight[o, i] = next(rest)
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    torch.testing.assert_close(layer(x), full(x))
    assert torch.autograd.gradcheck(layer, x[:1, :, :4, :4].clone().requires_grad_())


def test_lenet5_s_table_is_the_paper_s():
    """Table I of 1998: ten connections from every map of S2, 60 in all."""
    layer = create_model("lenet5", as_printed=True).stages[1][1]
    reads = layer.reads % 6
    assert torch.bincount(reads).tolist() == [10] * 6
    assert layer.weight.numel() + layer.bias.numel() == 1516


def test_subsampling_and_scaled_tanh():
    layer = Subsampling(2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, 3.0]).view(2, 1, 1))
        layer.bias.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1))
    x = torch.arange(8.0).view(1, 2, 2, 2)
    torch.testing.assert_close(layer(x).flatten(), torch.tensor([2 * 1.5 + 1, 3 * 5.5 - 1]))
    # f(1) = 1, f(-1) = -1 (LeCun et al. 1998, Appendix A), to the printed constants' precision.
    assert float(ScaledTanh()(torch.tensor(1.0))) == pytest.approx(1, abs=1e-4)


def test_dense_head_is_dense_layers_and_slides():
    torch.manual_seed(0)
    head = DenseHead(3, (2, 4), (5, 6), 7).double()
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    one, _, two, _ = head.hidden
    flat = torch.relu(nn.functional.linear(x.flatten(1), one.weight.flatten(1), one.bias))
    flat = torch.relu(nn.functional.linear(flat, two.weight.flatten(1), two.bias))
    torch.testing.assert_close(head(x), head.fc(flat))
    larger = torch.randn(1, 3, 3, 4, dtype=torch.float64)
    each = torch.stack([head(larger[:, :, i : i + 2]) for i in range(2)])
    torch.testing.assert_close(head(larger), each.mean(0))


def test_googlenet_is_torchvision_s_net(tmp_path):
    from torchvision.models import googlenet

    torch.manual_seed(0)
    theirs = googlenet(weights=None, aux_logits=False, init_weights=False, num_classes=4).eval()
    torch.save(theirs.state_dict(), tmp_path / "googlenet.pth")
    ours = create_model("googlenet", num_classes=4).eval()
    load_weights(ours, tmp_path / "googlenet.pth")
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_hierarchical_mnist_net_reads_the_same_filters_at_every_scale():
    torch.manual_seed(0)
    plain = create_model("cnn_mnist_scale").eval()
    hierarchical = create_model("hierarchical_mnist_scale", scales=(0.5, 1.0)).eval()
    state = hierarchical.stages[0].net.state_dict()
    hierarchical.stages[0].net.load_state_dict(
        {key: plain.state_dict()[f"stages.{key}"] for key in state}
    )
    x = torch.rand(1, 1, 28, 28)
    maps = hierarchical.forward_features(x)
    torch.testing.assert_close(maps[:, 64:], plain.forward_features(x))
    half = nn.functional.interpolate(x, (14, 14), mode="bilinear", antialias=True)
    small = plain.forward_features(half)
    assert small.shape[-1] == 3
    enlarged = nn.functional.interpolate(small, (7, 7), mode="bilinear")
    torch.testing.assert_close(maps[:, :64], enlarged)


def test_scale_tiny_slides_over_a_pyramid_and_pools():
    torch.manual_seed(0)
    model = create_model("scale_tiny", num_classes=5).eval()
    levels = model.stem(torch.rand(1, 3, 64, 64)).levels
    assert [level.shape[-1] for level in levels] == [64, 32, 16, 8]
    assert [s[-2].scale_extent for s in model.stages] == [2, 2, 2, 1]
    assert math.isfinite(float(model(torch.rand(1, 3, 64, 64)).detach().sum()))
