"""Classifiers of every make, asked in one way."""

from __future__ import annotations

import dataclasses
import json

import pytest
import timm
import torch
from torch import nn

from nearfar.classifiers import InputSpec, load_classifier
from nearfar.data import Normalisation, Normalised, ScaleProtocol
from nearfar.errors import InputError
from nearfar.models import create_model

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
MODULE = """
import torch

network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
number = 7


def brightness(images):
    return torch.stack([images.mean((1, 2, 3)), -images.mean((1, 2, 3))], dim=1)


class Holder:
    net = network
"""


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(3, 3, 32, 32)


def normalised(net, x):
    figures = Normalised(net.eval(), Normalisation(MEAN, STD))
    with torch.no_grad():
        return figures(x)


def test_a_name_with_somebodys_weights(tmp_path, images):
    torch.manual_seed(1)
    net = create_model("resnet20_cifar", num_classes=7)
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "w.th"
    )
    opened = load_classifier(f"resnet20_cifar@{tmp_path / 'w.th'}", MEAN, STD)
    assert opened.input_spec.num_classes == 7  # the classifier in the file says so
    assert opened.input_spec.protocol == ScaleProtocol(canvas=32, content=32)
    torch.testing.assert_close(opened.predict(images), normalised(net, images))
    assert opened.spec.weights == str(tmp_path / "w.th")


def test_channels_are_those_of_the_weights(tmp_path):
    net = create_model("cnn_small", num_classes=3, in_chans=1)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    opened = load_classifier(f"cnn_small@{tmp_path / 'w.pth'}")
    assert (opened.input_spec.in_chans, opened.input_spec.num_classes) == (1, 3)


def test_a_name_alone_has_the_random_weights_of_seed_zero(images):
    before = torch.get_rng_state()
    one, two = (load_classifier("resnet20_cifar") for _ in range(2))
    torch.testing.assert_close(one.predict(images), two.predict(images), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_published_networks_say_how_they_see(images):
    opened = load_classifier("test_resnet")
    cfg = timm.create_model("test_resnet").pretrained_cfg
    shown = opened.input_spec.protocol
    assert shown.side == "shorter"
    assert shown.canvas == cfg["input_size"][1]
    assert shown.content == round(shown.canvas / cfg["crop_pct"])
    inside = opened.module.network
    figures = Normalised(inside, Normalisation(tuple(cfg["mean"]), tuple(cfg["std"])))
    x = torch.rand(2, 3, shown.canvas, shown.canvas)
    with torch.no_grad():
        torch.testing.assert_close(opened.predict(x), figures.eval()(x))


def test_torchvisions_networks_have_their_own_names():
    opened = load_classifier("torchvision/squeezenet1_1")
    assert (opened.input_spec.protocol.canvas, opened.input_spec.protocol.content) == (224, 256)
    assert opened.input_spec.num_classes == 1000
    with pytest.raises(
        InputError, match="torchvision has no classifier named 'resnet19'; did you mean"
    ):
        load_classifier("torchvision/resnet19")


def test_python_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "mine_for_opening.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    x = torch.rand(5, 3, 8, 8)
    function = load_classifier("mine_for_opening:brightness", size=8)
    torch.testing.assert_close(function.predict(x)[:, 0], x.mean((1, 2, 3)))
    assert (function.module, function.input_spec.num_classes) == (None, 2)
    network = load_classifier("mine_for_opening:Holder.net", size=8)
    with torch.no_grad():
        torch.testing.assert_close(network.predict(x), network.module(x))
    for word, said in (
        ("mine_for_opening:nothing", "cannot be imported: .*nothing"),
        ("no_such_module:x", "cannot be imported: No module named"),
        ("mine_for_opening:number", "is a int; a network, or a function"),
    ):
        with pytest.raises(InputError, match=said):
            load_classifier(word, size=8)


def test_functions_may_be_normalised_and_grey():
    opened = load_classifier(lambda x: x.mean((2, 3)).repeat(1, 2), (0.5,), (0.25,), size=4)
    x = torch.rand(2, 1, 4, 4)
    assert opened.input_spec.in_chans == 1
    torch.testing.assert_close(opened.predict(x)[:, 0], (x.mean((1, 2, 3)) - 0.5) / 0.25)


class Odd(nn.Module):
    """A dropout that a trained net must not use, in a network left in training mode."""

    def __init__(self):
        super().__init__()
        self.drop, self.fc = nn.Dropout(0.9), nn.Linear(3, 4, dtype=torch.float64)

    def forward(self, x):
        return self.fc(self.drop(x.mean((2, 3))))


def test_networks_are_asked_in_eval_mode_and_left_as_they_were():
    net = Odd().train()
    net.fc.eval()
    opened = load_classifier(net, size=6, num_classes=4)
    x = torch.rand(2, 3, 6, 6)
    found = opened.predict(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, net.fc(x.double().mean((2, 3))).float().detach())
    assert (net.training, net.drop.training, net.fc.training) == (True, True, False)


def test_an_exported_program(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(net, (torch.rand(2, 3, 8, 8),), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "net.pt2")
    opened = load_classifier(tmp_path / "net.pt2", MEAN, STD)
    assert (opened.input_spec.protocol.canvas, opened.input_spec.any_size) == (8, False)
    x = torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(opened.predict(x), normalised(net, x))


def test_a_program_of_one_batch_size_is_filled_up(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).eval()
    torch.export.save(torch.export.export(net, (torch.rand(4, 3, 8, 8),)), tmp_path / "net.pt2")
    opened = load_classifier(tmp_path / "net.pt2")
    assert opened.batch == 4
    x = torch.rand(6, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(opened.predict(x), net(x))


@pytest.mark.parametrize(
    ("word", "options", "said"),
    [
        ("resnet20_cifra", {}, "no model is named 'resnet20_cifra'; did you mean"),
        ("resnet20_cifar@nowhere.th", {}, "no file of weights at nowhere.th"),
        ("nowhere.safetensors", {}, "no checkpoint at nowhere.safetensors"),
        ("nowhere.onnx", {}, "no ONNX file at nowhere.onnx"),
        ("nowhere.pt2", {}, "no program at nowhere.pt2"),
        (
            "resnet20_cifar",
            {"mean": (0.5,), "std": (0.5,)},
            "images of 3 channels, got mean and std of 1",
        ),
        ("resnet20_cifar", {"mean": (0.5,)}, "a mean and a standard deviation"),
        ("resnet20_cifar", {"size": 0}, "size is a side in pixels"),
        (nn.Flatten(), {}, "does not say how large its images are; give size"),
        (nn.Conv2d(3, 4, 3), {"size": 8}, r"one tensor \[3, K\] of logits, got \[3, 4, 6, 6\]"),
        (nn.Linear(5, 4), {"size": 8}, "does not take images of 3×8×8"),
        (len, {}, "is a function and does not say how large"),
        (lambda x: [1], {"size": 8}, r"one tensor \[3, K\] of logits, got no tensor"),
    ],
)
def test_what_cannot_be_opened_is_said(word, options, said):
    with pytest.raises(InputError, match=said):
        load_classifier(word, **options)


def test_a_file_of_another_kind(tmp_path):
    for name, said in (
        ("w.th", "for weights alone name the network too, as in resnet50@"),
        ("w.onnx", "cannot be run by onnxruntime"),
        ("w.pt2", "cannot be read as a program"),
        ("w.safetensors", "not a safetensors file"),
    ):
        (tmp_path / name).write_bytes(b"something else")
        if name == "w.onnx":
            pytest.importorskip("onnxruntime")
        with pytest.raises(InputError, match=said):
            load_classifier(tmp_path / name)


def test_what_says_everything_itself_is_not_told_otherwise():
    opened = load_classifier(lambda x: x.mean((2, 3)), size=8)
    assert load_classifier(opened) is opened
    with pytest.raises(
        InputError, match="leave out mean, std, size, num_classes, answers, output and crop_pct"
    ):
        load_classifier(opened, size=9)


def test_cards_are_read_back_as_they_were_written():
    shown = ScaleProtocol(canvas=40, content=48, side="shorter", interpolation="bilinear")
    input_spec = InputSpec("net", 3, shown, 2, ("cat", "dög"), any_size=False)
    assert InputSpec.from_json(input_spec.as_json(), "here") == input_spec
    assert input_spec.names() == ("cat", "dög")
    assert dataclasses.replace(input_spec, class_names=None).names() == ("0", "1")
    stretched = ScaleProtocol((40, 60), (48, 64), "both", "nearest", (127, 0, 255))
    input_spec = InputSpec("net", 3, stretched, 2, assumed="it is assumed that")
    assert InputSpec.from_json(input_spec.as_json(), "here") == input_spec
    with pytest.raises(InputError, match="answers with 2 numbers, got 3 class names"):
        InputSpec("net", 3, shown, 2, ("a", "b", "c"))
    for text, said in (
        ("{", "is not JSON that can be read"),
        ("{}", "of the form None, this nearfar reads"),
        (
            json.dumps({"schema": "nearfar.input_spec/9"}),
            "of the form 'nearfar.input_spec/9', this nearfar reads",
        ),
    ):
        with pytest.raises(InputError, match=said):
            InputSpec.from_json(text, "there")
