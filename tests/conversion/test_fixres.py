"""fixres: two layers learn, at the size that was asked for, and nothing else moves."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import nearfar
from nearfar.classifiers import InputOptions
from nearfar.conversion import FixRes, convert_network
from nearfar.conversion.fixres import TunedHead
from nearfar.data import DataSpec
from nearfar.deploy import FinetuneSpec, convert
from nearfar.errors import InputError
from nearfar.models import create_model
from nearfar.training import FitSpec


@pytest.mark.parametrize(
    ("name", "tuned"),
    [
        ("resnet20_cifar", ("stages.2.2.bn2", "head.fc")),
        ("resnet18", ("layer4.1.bn2", "fc")),
        ("convnext_atto", ("head.norm", "head.fc")),
        ("torchvision/mobilenet_v3_small", ("features.12.1", "classifier.3")),
    ],
)
def test_the_last_norm_and_the_classifier_are_those(name, tuned):
    with torch.device("meta"):
        network = create_model(name, num_classes=4)
    (before, after) = tuned
    found = convert_network(network, FixRes(), trial=False)[0]._tuned
    assert found[-1] == after
    assert found[0] == before


def test_the_image_is_enlarged_as_torch_does_it():
    torch.manual_seed(0)
    net = create_model("cnn_small", num_classes=4, in_chans=3).eval()
    twin, plan = convert_network(net, FixRes(scale=1.5), 28)
    images = torch.rand(2, 3, 28, 28)
    larger = nn.functional.interpolate(images, size=(42, 42), mode="bilinear")
    torch.testing.assert_close(twin(images), net(larger))
    assert "alone are trained, shown images 1.5 times as large" in plan.changes[0].after
    assert all(p.requires_grad for p in net.parameters())


def test_frozen_layers_stay_in_evaluation_mode():
    net = TunedHead(timm.create_model("resnet10t", num_classes=3))
    norms = {n: m for n, m in net.net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    last = net._tuned[0]
    net.train()
    assert {name for name, norm in norms.items() if norm.training} == {last}
    net.eval()
    assert not any(norm.training for norm in norms.values())
    learning = {name for name, p in net.net.named_parameters() if p.requires_grad}
    assert learning == {f"{last}.weight", f"{last}.bias", "fc.weight", "fc.bias"}


def test_training_moves_those_two_and_nothing_else(tmp_path):
    data = DataSpec("digits", train=120, validation=30, test=60)
    tuning = FinetuneSpec(FitSpec(epochs=1, lr=0.01, keep="last"))
    method = FixRes(scale=1.25)
    result = convert(
        "resnet20_cifar@" + _weights(tmp_path),
        method,
        data=data,
        finetune=tuning,
        inputs=InputOptions(size=28),
        out=tmp_path / "out",
    )
    original = _network(tmp_path).state_dict()
    tuned = result.network.net.state_dict()
    moved = {name for name in original if not torch.equal(original[name], tuned[name])}
    layer = "stages.2.2.bn2"
    ends = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert moved == {f"{layer}.{end}" for end in ends} | {"head.fc.weight", "head.fc.bias"}
    loaded = nearfar.load_classifier(result.path)
    images = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(loaded.predict(images), result.classifier.predict(images))
    record = nearfar.load_checkpoint(result.path).recipe.data
    assert record.random_scale is None


def _network(folder):
    torch.manual_seed(0)
    return create_model("resnet20_cifar", num_classes=10, in_chans=1)


def _weights(folder):
    torch.save(_network(folder).state_dict(), folder / "weights.pth")
    return str(folder / "weights.pth")


def test_what_it_refuses():
    with pytest.raises(InputError, match="scale must be a number above 0, got -1"):
        FixRes(scale=-1)
    with pytest.raises(InputError, match="Identity has no classifier"):
        convert_network(nn.Identity(), FixRes())
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=3)
    with pytest.raises(InputError, match="but not of 64×64"):
        convert_network(vit, FixRes(scale=2), 32)
    twin, _ = convert_network(create_model("cnn_small"), FixRes(), 28)
    with pytest.raises(InputError, match="tuned by fixres before"):
        convert_network(twin, FixRes(), 28)
