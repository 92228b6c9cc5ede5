"""A class for every pixel."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from nearfar import FCN, HierarchicalNet, InputError
from nearfar.models import SmallCNN, create_model

BACKBONES = [
    ("resnet20_cifar", 2, (32, 37)),
    ("densenet100_k24_cifar", 1, (16, 20)),
    ("wsms_resnet20_cifar", 2, (33, 24)),
    ("scale_tiny", 1, (64, 72)),
    ("alexnet_two_tower", 1, (224, 256)),
    ("hierarchical_resnet20_cifar", 1, (24, 32)),
    ("resnet18", 2, (64, 90)),
    ("convnext_atto", 1, (64, 96)),
    ("efficientnet_b0", 2, (64, 64)),
    ("regnety_002", 0, (64, 64)),
]


@pytest.mark.parametrize(("name", "skips", "size"), BACKBONES, ids=[b[0] for b in BACKBONES])
def test_over_ours_and_timm_s(name, skips, size):
    torch.manual_seed(0)
    model = FCN(create_model(name), 5, skips)
    labels = model(torch.randn(2, 3, *size))
    assert labels.shape == (2, 5, *size)
    F.cross_entropy(labels, torch.randint(5, (2, *size))).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key


def test_it_is_the_naive_composition():
    torch.manual_seed(0)
    net = create_model("resnet20_cifar")
    model = FCN(net, 3, skips=2).eval()
    x = torch.randn(1, 3, 32, 40)

    def up(maps, size):
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)

    with torch.no_grad():
        one, two, three = net.forward_intermediates(x, intermediates_only=True)
        coarse, middle, fine = (
            conv(maps)
            for conv, maps in zip(
                (model.each.score, *model.each.skips), (three, two, one), strict=True
            )
        )
        expected = fine + up(middle + up(coarse, (16, 20)), (32, 40))
        torch.testing.assert_close(model(x), expected)


def test_dense_layers_slide():
    """A dense net's labels at the designed size are its answer, everywhere the same."""
    torch.manual_seed(0)
    net = create_model("lenet5").eval()
    x = torch.randn(1, 1, 28, 28)
    with torch.no_grad():
        flat = net.forward_head(net.forward_features(x), pre_logits=True)
        model = FCN(net, 4).eval()
        labels = model(x)
        answer = F.linear(flat, model.each.score.weight.flatten(1), model.each.score.bias)
    torch.testing.assert_close(labels, answer[:, :, None, None].expand(1, 4, 28, 28))


def test_a_net_over_a_pyramid_labels_every_level():
    torch.manual_seed(0)
    net = SmallCNN()
    model = FCN(HierarchicalNet(net, (0.5, 1), "max"), 3).eval()
    x = torch.randn(1, 3, 16, 16)
    half = F.interpolate(x, (8, 8), mode="bilinear", antialias=True)
    with torch.no_grad():
        both = [model.each(level).log_softmax(1) for level in (half, x)]
        enlarged = F.interpolate(both[0], (16, 16), mode="bilinear")
        torch.testing.assert_close(model(x), torch.maximum(enlarged, both[1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FCN(nn.Linear(2, 2), 3), "a backbone that gives maps .* got Linear"),
        (lambda: FCN(SmallCNN(), 0), "num_classes >= 1 and skips >= 0, got 0 and 0"),
        (lambda: FCN(SmallCNN(), 3, skips=2), "at most the backbone's 1 finer stages, got 2"),
        (lambda: FCN(create_model("mlp_mnist"), 3), "a backbone that gives maps .* got MLP"),
        (
            lambda: FCN(timm.create_model("mixer_s32_224"), 3),
            "cannot be tried with an image of 64×64: Input height",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()
