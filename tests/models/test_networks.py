from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from torch import nn

import nearfar
from nearfar.errors import InputError
from nearfar.models import HierarchicalNet, SmallCNN, WSMSNet, create_model, list_models
from nearfar.models.staged import StagedBackbone

NAMES = list_models()


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_the_registry_holds_the_five():
    assert set(NAMES) >= {
        "cnn_small",
        "si_cnn_small",
        "pyramid_cnn_small",
        "wsms_cnn_small",
        "hierarchical_cnn_small",
    }
    assert list_models("si_*") == ["si_cnn_small"]
    assert timm.is_model("nearfar_si_cnn_small")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(28, 28), (33, 21), (16, 40)])
def test_every_model_runs_forward_and_backward(name, size):
    model = create_model(name, num_classes=7, in_chans=2)
    logits = model(torch.randn(3, 2, *size))
    assert logits.shape == (3, 7)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.tensor([0, 3, 6])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_classifiers_can_be_replaced(name):
    model = timm.create_model(f"nearfar_{name}", num_classes=5, in_chans=1)
    model.reset_classifier(3)
    assert model.num_classes == 3
    assert model(torch.randn(1, 1, 20, 20)).shape == (1, 3)
    assert isinstance(model.get_classifier(), nn.Linear)


def test_twins_share_the_plain_net_s_parameters():
    plain = create_model("cnn_small", in_chans=1)
    assert parameters(plain) == 5 * 5 * 16 + 16 + 5 * 5 * 16 * 32 + 32 + 32 * 10 + 10
    for name in ("si_cnn_small", "hierarchical_cnn_small"):
        assert parameters(create_model(name, in_chans=1)) == parameters(plain)
    si = create_model("si_cnn_small", in_chans=1)
    si.load_state_dict(plain.state_dict())


def test_pyramid_twin_has_the_stated_shares():
    plain, twin = create_model("cnn_small"), create_model("pyramid_cnn_small")
    shares = [
        parameters(theirs[-2]) / parameters(ours[-2])
        for theirs, ours in zip(plain.stages, twin.stages, strict=True)
    ]
    assert shares == [4, 2]


def test_hierarchical_net_is_the_collapse_of_its_answers():
    net = create_model("cnn_small", in_chans=1)
    x = torch.randn(2, 1, 20, 20)
    logs = torch.stack(
        [
            net(
                x
                if s == 1
                else nn.functional.interpolate(
                    x, size=(round(20 * s),) * 2, mode="bilinear", antialias=s < 1
                )
            ).log_softmax(1)
            for s in (0.5, 1, 2)
        ]
    )
    for vote, expected in (
        ("logsumexp", logs.logsumexp(0)),
        ("mean", logs.mean(0)),
        ("max", logs.amax(0)),
    ):
        torch.testing.assert_close(HierarchicalNet(net, (0.5, 1, 2), vote)(x), expected)


def test_hierarchical_net_meets_a_doubled_thing_as_it_met_the_thing():
    """Level 1/2 of the doubled image is the image: one of the net's answers is the same."""
    net = create_model("cnn_small", in_chans=1).eval()
    x = torch.zeros(1, 1, 32, 32)
    x[..., 12:20, 12:20] = torch.rand(8, 8)
    doubled = nn.functional.interpolate(x, scale_factor=2)[..., 16:48, 16:48]
    half = nn.functional.interpolate(doubled, size=(16, 16), mode="bilinear", antialias=False)
    torch.testing.assert_close(half, x[..., 8:24, 8:24])
    torch.testing.assert_close(net(half), net(x[..., 8:24, 8:24]))


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
        assert len(tower) == blocks  # the stem and one block fewer for each stage
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


def test_small_cnn_is_a_staged_backbone():
    assert isinstance(SmallCNN(), StagedBackbone)
    assert not isinstance(nn.Linear(1, 1), StagedBackbone)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: create_model("cnn_smal"), "no model is named 'cnn_smal'; did you mean cnn_small"),
        (lambda: create_model("cnn_small", num_classes=0), "at least 1, got 0 and 3"),
        (lambda: create_model("cnn_small", depth=3), "does not take these options: .*depth"),
        (lambda: WSMSNet(nn.Linear(1, 1)), "needs a staged backbone .* got Linear"),
        (lambda: WSMSNet(SmallCNN(), 3), "stages must be from 1 to the backbone's 2 blocks, got 3"),
        (lambda: WSMSNet(SmallCNN(), 2, integration="conv5x5"), "integration must be one of"),
        (lambda: HierarchicalNet(SmallCNN(), vote="median"), "vote must be one of max, mean"),
        (lambda: SmallCNN(conv=[nn.Conv2d]), "one conv for all stages or one a stage, got 1 for 2"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_public_names_exist():
    for name in nearfar.__all__:
        assert getattr(nearfar, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nearfar.nothing
