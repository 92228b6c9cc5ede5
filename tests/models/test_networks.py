from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import nearfar
from nearfar.errors import InputError
from nearfar.models import HierarchicalNet, SmallCNN, WSMSNet, create_model, list_models
from nearfar.models.densenet_cifar import CifarDenseNet
from nearfar.models.hierarchical import distinct_scales
from nearfar.models.resnet_cifar import CifarResNet
from nearfar.models.staged import is_staged


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", list_models("*cnn_small"))
@pytest.mark.parametrize("size", [(28, 28), (33, 21), (16, 40)])
def test_small_nets_run_forward_and_backward_at_any_size(name, size):
    model = create_model(name, num_classes=7, in_chans=2)
    logits = model(torch.randn(3, 2, *size))
    assert logits.shape == (3, 7)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.tensor([0, 3, 6])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


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
    for reduction, expected in (
        ("logsumexp", logs.logsumexp(0)),
        ("mean", logs.mean(0)),
        ("max", logs.amax(0)),
    ):
        torch.testing.assert_close(HierarchicalNet(net, (0.5, 1, 2), reduction)(x), expected)


@pytest.mark.parametrize("window", [None, "image"])
@pytest.mark.parametrize("reduction", ["max", "mean", "logsumexp", "learned"])
def test_scales_that_give_one_size_are_one_level(reduction, window):
    torch.manual_seed(0)
    net = SmallCNN(num_classes=4, in_chans=1).eval()
    many = HierarchicalNet(net, (0.5, 0.99, 1, 1.01), reduction, window)
    if reduction == "learned":
        nn.init.normal_(many.weights)
    few = HierarchicalNet(net, (0.5, 1), reduction, window)
    if reduction == "learned":
        few.weights.data = many.weights.data[[0, 2]]
    x = torch.rand(2, 1, 28, 28)  # 0.99 and 1.01 of 28 are 28
    torch.testing.assert_close(many(x), few(x), rtol=0, atol=0)
    assert len(many.forward_features(x)) == 2
    # Of 200 they are 198 and 202, and all four count.
    large = torch.rand(2, 1, 200, 200)
    assert many.forward_features(large).scales == (0.5, 0.99, 1, 1.01)
    assert not torch.equal(many(large), few(large))


def test_a_size_is_named_by_the_scale_nearest_to_it():
    maps = torch.rand(1, 1, 28, 28)
    assert distinct_scales(maps, (1.01, 0.99, 1.0, 0.49, 0.5, 0.5)) == (1.0, 0.5)
    assert distinct_scales(torch.rand(1, 1, 28, 60), (0.99, 1.0)) == (0.99, 1.0)


def test_hierarchical_net_meets_a_doubled_thing_as_it_met_the_thing():
    """Level 1/2 of the doubled image is the image: one of the net's answers is the same."""
    net = create_model("cnn_small", in_chans=1).eval()
    x = torch.zeros(1, 1, 32, 32)
    x[..., 12:20, 12:20] = torch.rand(8, 8)
    doubled = nn.functional.interpolate(x, scale_factor=2)[..., 16:48, 16:48]
    half = nn.functional.interpolate(doubled, size=(16, 16), mode="bilinear", antialias=False)
    torch.testing.assert_close(half, x[..., 8:24, 8:24])
    torch.testing.assert_close(net(half), net(x[..., 8:24, 8:24]))


def test_small_cnn_is_a_staged_backbone():
    assert is_staged(SmallCNN())
    assert not is_staged(nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: create_model("cnn_smal"), "no model is named 'cnn_smal'; did you mean cnn_small"),
        (lambda: create_model("cnn_small", num_classes=-1), "at least 0 .* got -1 and None"),
        (lambda: create_model("resnet21_cifar"), "did you mean resnet"),
        (lambda: CifarResNet(21), r"depth must be 6n \+ 2 .* got 21"),
        (lambda: CifarDenseNet(20), r"depth must be 3n \+ 4 .* got 20"),
        (lambda: create_model("lenet5", pretrained=True), "lenet5 has no pretrained weights"),
        (lambda: create_model("lenet1989", img_size=18), "multiples of 4 .* got 18×18"),
        (lambda: create_model("lenet5")(torch.rand(1, 1, 20, 20)), "at least 5×5, got 3×3"),
        (lambda: create_model("lenet1989")(torch.rand(1, 1, 20, 20)), "takes images of one size"),
        (
            lambda: create_model("mlp_mnist")(torch.rand(1, 1, 20, 20)),
            "images of 1×28×28, got 1×20×20",
        ),
        (lambda: create_model("zfnet").reset_classifier(5, "max"), "pooling cannot be 'max'"),
        (lambda: SmallCNN().forward_intermediates(torch.rand(1, 3, 8, 8), output_fmt="NLC"), "NLC"),
        (lambda: create_model("cnn_small", depth=3), "does not take these options: .*depth"),
        (lambda: WSMSNet(nn.Linear(1, 1)), "needs a staged backbone, got Linear"),
        (
            lambda: WSMSNet(timm.create_model("vit_tiny_patch16_224")),
            "VisionTransformer are at 1/16",
        ),
        (lambda: WSMSNet(SmallCNN(), 3), "stages must be from 1 to the backbone's 2 blocks, got 3"),
        (lambda: WSMSNet(SmallCNN(), 2, integration="conv5x5"), "integration must be one of"),
        (
            lambda: HierarchicalNet(SmallCNN(), reduction="median"),
            "reduction must be one of max, mean",
        ),
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
