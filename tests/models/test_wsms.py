"""WSMS-Nets: what is shared, what is not, over whose backbones."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from torch import nn

from nearfar import count
from nearfar.models import WSMSNet, create_model
from nearfar.models.resnet_cifar import CifarResNet


def parameters(model):
    return sum(p.numel() for p in model.parameters())


class WithNorms(nn.Module):
    """A staged backbone of a user's: convolutions with batch norm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, stride=2 if i else 1, padding=1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
            )
            for i, (a, b) in enumerate([(4, 4), (4, 8), (8, 16)])
        )
        self.stage_channels = (4, 8, 16)
        self.pool = "avg"


@pytest.mark.parametrize("integration", ["none", "conv1x1", "conv3x3"])
@pytest.mark.parametrize("size", [(16, 16), (19, 13)])
def test_wsms_is_the_naive_composition(integration, size):
    model = WSMSNet(WithNorms(), 3, 5, integration, channels=6).eval()
    x = torch.randn(2, 3, *size)
    maps = []
    for s, tower in enumerate(model.towers):
        half = tuple((n + 2**s // 2) // 2**s for n in size)
        level = nn.functional.interpolate(x, half, mode="bilinear", antialias=True) if s else x
        maps.append(tower(level))
    onto = maps[0].shape[-2:]
    joined = torch.cat(
        [
            m if m.shape[-2:] == onto else nn.functional.interpolate(m, onto, mode="bilinear")
            for m in maps
        ],
        dim=1,
    )
    assert joined.shape[1] == 16 + 8 + 4
    features = model.integration(joined)
    torch.testing.assert_close(model(x), model.head.fc(features.mean((2, 3))))


def test_wsms_shares_convolutions_and_nothing_else():
    model = WSMSNet(WithNorms(), 3)
    first = dict(model.towers[0].named_parameters())
    for tower, blocks in zip(model.towers[1:], (3, 2), strict=True):
        # The stem, one block fewer for each stage, and nothing after the last.
        assert len(tower) == blocks + 1
        assert isinstance(tower[-1], nn.Identity)
        for key, module in tower.named_modules():
            twin = model.towers[0].get_submodule(key)
            if isinstance(module, nn.Conv2d):
                assert module.weight is first[f"{key}.weight"]
            if isinstance(module, nn.BatchNorm2d):
                assert module.weight is not twin.weight
                assert module.running_mean is not twin.running_mean
    backbone = WithNorms()
    norms = sum(parameters(m) for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))
    extra = 2 * ((4 + 4 + 8) + (4 + 4))  # scale and shift of stage 2's and stage 3's norms
    expected = parameters(backbone) + extra + 28 * 128 + 2 * 128 + 128 * 10 + 10
    assert parameters(WSMSNet(backbone, 3)) == expected
    assert norms == 2 * (4 + 4 + 8 + 16)


def test_wsms_has_one_gradient_for_all_stages():
    model = WSMSNet(WithNorms(), 2, integration="none").eval()
    x = torch.randn(1, 3, 16, 16)
    weight = model.towers[0][1][0].weight
    model(x).sum().backward()
    total = weight.grad.clone()
    alone = []
    for s in range(2):
        other_net = WSMSNet(WithNorms(), 2, integration="none").eval()
        other_net.load_state_dict(model.state_dict())
        other = other_net.towers[1 - s]
        for parameter in other.parameters():
            parameter.requires_grad_(False)
        for part in (other_net.towers[s],):
            separate = nn.Parameter(part[1][0].weight.detach().clone())
            part[1][0].weight = separate
        other_net(x).sum().backward()
        alone.append(separate.grad)
    torch.testing.assert_close(total, alone[0] + alone[1])


def same_weights(model):
    one, two = (tower[1][0].weight for tower in model.towers[:2])
    return one is two


def test_wsms_keeps_sharing_through_moves_copies_and_loading():
    model = WSMSNet(WithNorms(), 2)
    count = parameters(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert same_weights(twin)
        assert parameters(twin) == count
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    assert same_weights(model)
    model.to("meta").to_empty(device="cpu")
    assert same_weights(model)
    assert parameters(model) == count


def test_ms_net_has_weights_of_its_own_in_every_stage():
    model = WSMSNet(WithNorms(), 3, share_weights=False)
    one, two = model.towers[0][1][0].weight, model.towers[1][1][0].weight
    assert one is not two
    assert not torch.equal(one, two)
    assert parameters(model) > parameters(WSMSNet(WithNorms(), 3))


@pytest.mark.parametrize(
    "name", ["resnet18", "regnety_002", "convnext_atto", "efficientnet_b0", "vgg11", "densenet121"]
)
def test_over_timm_s_backbones(name):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 128, 96)
    plain = timm.create_model(name)
    with torch.no_grad():
        plain.eval()
        # EfficientNet mixes its last maps once more, for its own head alone.
        own = name == "efficientnet_b0"
        theirs = plain.forward_intermediates(x)[1][-1] if own else plain.forward_features(x)
    model = WSMSNet(plain, 3, num_classes=7)
    # Stage 1 is the whole backbone up to its head, unchanged.
    with torch.no_grad():
        torch.testing.assert_close(model.towers[0](x), theirs)
        torch.testing.assert_close(model.towers[0].intermediates(x)[0], theirs)
        maps = [tower(x[..., :: 2**s, :: 2**s]) for s, tower in enumerate(model.towers)]
    assert len({m.shape[-2:] for m in maps}) == 1
    assert model.integration[0].in_channels == sum(m.shape[1] for m in maps)
    logits = model.train()(x)
    nn.functional.cross_entropy(logits, torch.tensor([0, 6])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
    first = {id(p) for p in model.towers[0].parameters()}
    own = [
        module
        for tower in model.towers[1:]
        for module in tower.modules()
        if any(id(p) not in first for p in module.parameters(recurse=False))
    ]
    assert own or name == "vgg11"  # which has no norms
    assert all("Norm" in type(module).__name__ for module in own)


def test_multiplications_of_the_papers_nets():
    """Takahashi et al. §4.1, §4.2: over all convolutions, in millions."""
    for name, millions in [
        ("resnet110_cifar", 252),
        ("wsms_resnet110_cifar", 301),
        ("densenet100_k24_cifar", 6_889),
        ("wsms_densenet100_k24_cifar", 8_454),
    ]:
        with torch.device("meta"):
            model = create_model(name)
        rows = count(model, (3, 32, 32)).rows
        convolutions = sum(row.multiplications for row in rows if "conv" in row.kind.lower())
        assert convolutions / 1e6 == pytest.approx(millions, rel=0.02), name


def test_downsampling_averages_after_the_convolution():
    """§4.3, Fig. 8: no convolution in the blocks has a stride."""
    model = create_model("wsms_resnet50")
    net = model.towers[0].net
    strided = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    assert strided == [net.conv1]
    assert isinstance(net.maxpool, nn.MaxPool2d)
    assert isinstance(net.layer2[0].aa, nn.AvgPool2d)
    x = torch.randn(1, 3, 64, 64)
    assert [tower(x).shape[1] for tower in model.towers] == [2048, 1024, 512]


def test_pre_activated_backbones_end_in_a_norm_of_their_own_in_every_stage():
    model = create_model("wsms_densenet100_k24_cifar")
    widths = [tower[-1][0].num_features for tower in model.towers]
    assert widths == [2320, 1552, 784]
    assert isinstance(create_model("densenet100_k24_cifar").final[0], nn.BatchNorm2d)


def test_moving_to_half_precision_and_back_keeps_sharing():
    model = WSMSNet(CifarResNet(8), 3).to(torch.bfloat16).float()
    assert model.towers[0][1][0].conv1.weight is model.towers[2][1][0].conv1.weight
