"""Weights from a file, whoever wrote it."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional as T

from nearfar import InputError, load_weights
from nearfar.classifiers import load_classifier
from nearfar.models import WSMSNet, create_model
from nearfar.models.resnet_cifar import CifarResNet

DATA = Path(os.environ.get("NEARFAR_DATA", "data"))
THEIRS = DATA / "pretrained" / "resnet20-cifar10-12fca82f.th"
needs_theirs = pytest.mark.skipif(
    not THEIRS.is_file(), reason="needs pretrained/resnet20-cifar10-12fca82f.th in NEARFAR_DATA"
)


class Original(nn.Module):
    """CIFAR's ResNet-20 under torchvision's names, after akamaster/pytorch_resnet_cifar10."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        sizes = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        for i, (before, width, stride) in enumerate(sizes, start=1):
            blocks = [self.block(before, width, stride)]
            blocks += [self.block(width, width, 1) for _ in range(2)]
            setattr(self, f"layer{i}", nn.ModuleList(blocks))
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def block(before, width, stride):
        block = nn.Module()
        block.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        block.bn1 = nn.BatchNorm2d(width)
        block.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        block.bn2 = nn.BatchNorm2d(width)
        return block

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for block in (*self.layer1, *self.layer2, *self.layer3):
            y = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
            if y.shape[1] != x.shape[1]:
                quarter = y.shape[1] // 4
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
            x = F.relu(y + x)
        return self.linear(x.mean((2, 3)))


def shaken(model):
    """Statistics and norms of a net that has seen something."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.mark.parametrize("wrap", ["bare", "state_dict", "module", "compiled and parallel"])
@pytest.mark.parametrize("size", [(32, 32), (37, 21)])
def test_somebody_else_s_resnet20_gives_the_same_logits(wrap, size, tmp_path):
    theirs = shaken(Original())
    state = theirs.state_dict()
    if wrap == "module":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    if wrap == "compiled and parallel":
        state = {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}
    saved = {"state_dict": state, "best_prec1": 91.7} if wrap != "bare" else state
    torch.save(saved, tmp_path / "theirs.th")
    ours = create_model("resnet20_cifar")
    load_weights(ours, tmp_path / "theirs.th")
    x = torch.randn(3, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs(x))


@needs_theirs
def test_their_trained_file_loads():
    state = torch.load(THEIRS, map_location="cpu", weights_only=True)["state_dict"]
    theirs = Original()
    theirs.load_state_dict({k.removeprefix("module."): v for k, v in state.items()}, strict=False)
    ours = create_model("resnet20_cifar")
    load_weights(ours, THEIRS)
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@needs_theirs
@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "cifar10-jpeg/test").is_dir(), reason="needs cifar10-jpeg")
def test_their_weights_are_right_on_four_fifths_of_the_jpeg_copy():
    """91.8 % on the lossless images; about 80 % on the lossy copies."""
    model = create_model("resnet20_cifar").eval()
    load_weights(model, THEIRS)
    mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]

    def prepare(image):
        pixels = T.to_dtype(T.pil_to_tensor(image), torch.float32, scale=True)
        return T.normalize(pixels, list(mean), list(std))

    images = ImageFolder(DATA / "cifar10-jpeg/test", prepare)
    right = 0
    with torch.inference_mode():
        for batch, labels in torch.utils.data.DataLoader(images, 500):
            right += int((model(batch).argmax(1) == labels).sum())
    assert len(images) == 10_000
    assert 0.78 < right / 10_000 < 0.82


def test_shared_tensors_may_be_stored_once(tmp_path):
    model = shaken(WSMSNet(CifarResNet(8), 3))
    kept = {}
    seen = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            kept[name] = tensor.detach().clone()
    assert len(kept) < len(model.state_dict())
    save_file(kept, tmp_path / "w.safetensors")
    other = WSMSNet(CifarResNet(8), 3).eval()
    load_weights(other, tmp_path / "w.safetensors")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(other(x), model(x))
    assert other.towers[0][1][0].conv1.weight is other.towers[1][1][0].conv1.weight


class Anything:
    """What a pickle may hold, and would run."""


def test_refusals(tmp_path):
    net = CifarResNet(8)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = dict(net.state_dict())
    files = {
        "cut.safetensors": b"\x08\x00",
        "cut.pth": b"PK\x03\x04",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Anything(), protocol=2))
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(net, tmp_path / "whole.pth")
    torch.save({}, tmp_path / "empty.pth")
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "noweights.pth")
    torch.save({k: v for k, v in state.items() if "head" not in k}, tmp_path / "less.pth")
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "more.pth")
    torch.save(CifarResNet(8, num_classes=7).state_dict(), tmp_path / "seven.pth")
    for name, message in [
        ("none.pth", "no file of weights at"),
        ("cut.safetensors", "not a safetensors file, or is cut off"),
        ("cut.pth", "cannot be read as weights alone"),
        ("pickle.pth", "cannot be read as weights alone"),
        ("list.pth", "holds no state dict: .* got a list"),
        ("whole.pth", r"got a whole .*\.CifarResNet: save its state_dict\(\) instead"),
        ("empty.pth", "got an empty dictionary"),
        ("noweights.pth", "got a dictionary with epoch, lr"),
        ("less.pth", "lacks head.fc.bias, head.fc.weight"),
        ("more.pth", "has unknown extra"),
        ("seven.pth", r"head.fc.weight is \(7, 64\) where \(10, 64\) is needed"),
    ]:
        with pytest.raises(InputError, match=message):
            load_weights(net, tmp_path / name)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def trained_elsewhere(how, state, network):
    """A state dict as training scripts, trainers and wrappers leave it, and a word of what is beside it."""
    others = {"criterion.weight": torch.ones(7), "criterion.centres.weight": torch.ones(2, 3)}
    arguments = argparse.Namespace(lr=0.1, output=Path("out"))
    optimizer = torch.optim.Adam(network.parameters())
    sum(p.sum() for p in network.parameters()).backward()
    optimizer.step()
    return {
        "model_state_dict": lambda: {"epoch": 3, "model_state_dict": state, "loss": 0.1},
        "timm": lambda: {
            "epoch": 7, "arch": "cnn", "state_dict": state, "optimizer": optimizer.state_dict(),
            "version": 2, "args": arguments, "amp_scaler": {"scale": torch.ones(1)},
            "metric": np.float64(81.2), "history": defaultdict(list, {"loss": [0.5]}),
        },
        "torchvision": lambda: {
            "model": {name: torch.zeros_like(tensor) for name, tensor in state.items()},
            "optimizer": optimizer.state_dict(), "lr_scheduler": {"milestones": Counter([3])},
            "epoch": 7, "args": arguments,
            "model_ema": {
                "n_averaged": torch.tensor(5), **{f"module.{k}": v for k, v in state.items()},
            },
        },
        "lightning": lambda: {
            "pytorch-lightning_version": "2.5", "hyper_parameters": Anything(),
            "state_dict": {**{f"model.{k}": v for k, v in state.items()}, **others},
        },
        "backbone": lambda: {**{f"backbone.{k}": v for k, v in state.items()}, **others},
        "net of a compiled module": lambda: {
            "state_dict": {**{f"net._orig_mod.{k}": v for k, v in state.items()}, **others},
        },
        "swa": lambda: {"n_averaged": torch.tensor(9), **{f"module.{k}": v for k, v in state.items()}},
    }[how]()  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "how",
    [
        *("model_state_dict", "timm", "torchvision", "lightning", "backbone"),
        *("net of a compiled module", "swa"),
    ],
)
def test_files_as_trainers_save_them(how, legacy, tmp_path, caplog):
    trained = shaken(CifarResNet(8))
    state = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    file = tmp_path / "w.pth"
    torch.save(
        trained_elsewhere(how, state, CifarResNet(8)), file,
        _use_new_zipfile_serialization=not legacy,
    )  # fmt: skip
    network = CifarResNet(8).eval()
    with caplog.at_level(logging.WARNING):
        load_weights(network, file)
    assert all(tensor.equal(state[name]) for name, tensor in network.state_dict().items())
    beside = {"lightning": "criterion.centres.weight, criterion.weight", "swa": "n_averaged"}
    beside |= {"backbone": beside["lightning"], "torchvision": "n_averaged"}
    beside["net of a compiled module"] = beside["lightning"]
    assert [r.getMessage().partition("left aside: ")[2] for r in caplog.records] == [
        *filter(None, [beside.get(how)])
    ]


def test_nothing_of_a_training_script_s_file_is_run(tmp_path):
    class Runs:
        def __reduce__(self):
            return (exec, ("import pathlib; pathlib.Path('ran').write_text('')",))

    class Opens:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    class Calls:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    state = CifarResNet(8).state_dict()
    for number, kind in enumerate((Runs, Opens)):
        torch.save({"state_dict": state, "args": kind()}, tmp_path / f"{number}.pth")
        load_weights(CifarResNet(8), tmp_path / f"{number}.pth")
    torch.save({"state_dict": state, "args": Calls()}, tmp_path / "calls.pth")
    with pytest.raises(InputError, match="cannot be read as weights alone"):
        load_weights(CifarResNet(8), tmp_path / "calls.pth")
    assert not (tmp_path / "ran").exists()
    assert not Path("ran").exists()


def test_two_networks_in_a_file_are_not_chosen_between(tmp_path):
    state = CifarResNet(8).state_dict()
    both = {f"{role}.{name}": t for role in ("student", "teacher") for name, t in state.items()}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(InputError, match=r"2 networks of this kind, under student\., teacher\."):
        load_weights(CifarResNet(8), tmp_path / "both.pth")


def test_what_is_unknown_within_the_network_s_part_is_refused(tmp_path):
    state = {f"model.{name}": t for name, t in CifarResNet(8).state_dict().items()}
    torch.save({**state, "model.extra.weight": torch.ones(1)}, tmp_path / "more.pth")
    with pytest.raises(InputError, match=r"has unknown extra\.weight"):
        load_weights(CifarResNet(8), tmp_path / "more.pth")


def test_a_refusal_is_one_plain_line(tmp_path):
    torch.save({"state_dict": {}, "hook": os.getcwd}, tmp_path / "w.pth")
    with pytest.raises(InputError) as refusal:
        load_weights(CifarResNet(8), tmp_path / "w.pth")
    assert "\x1b" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "module posix is blocked" in str(refusal.value)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "vit_b_16"])
def test_the_number_of_classes_of_a_torchvision_net_is_in_its_file(name, tmp_path):
    network = torchvision.models.get_model(name, num_classes=7)
    torch.save({"model": network.state_dict(), "args": argparse.Namespace()}, tmp_path / "w.pth")
    opened = load_classifier(f"torchvision/{name}@{tmp_path / 'w.pth'}")
    assert opened.input_spec.num_classes == 7
    assert opened.module.network.state_dict().keys() == network.state_dict().keys()


def small_transformer(image_size=224, num_classes=5):
    return torchvision.models.VisionTransformer(
        image_size, 14, 1, 2, 8, 16, num_classes=num_classes
    )


def test_a_torchvision_transformer_is_built_for_its_weights_side(monkeypatch):
    """vit_h_14's published weights take 518 pixels; its builder makes 224 where nobody says."""
    monkeypatch.setattr(
        torchvision.models, "get_model", lambda name, weights, **o: small_transformer(**o)
    )
    images = torch.rand(1, 3, 518, 518)
    opened = load_classifier("torchvision/vit_h_14")
    assert opened.input_spec.protocol.canvas_size == (518, 518)
    assert opened.predict(images).shape == (1, 5)
    smaller = load_classifier("torchvision/vit_h_14", size=28)
    assert smaller.input_spec.protocol.canvas_size == (28, 28)
    assert smaller.predict(images[..., :28, :28]).shape == (1, 5)


@pytest.mark.parametrize("side", [56, 224])
def test_the_side_of_a_transformer_trained_elsewhere_is_in_its_file(side, monkeypatch, tmp_path):
    network = small_transformer(side, 7).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    monkeypatch.setattr(
        torchvision.models, "get_model", lambda name, weights, **o: small_transformer(**o)
    )
    opened = load_classifier(
        f"torchvision/vit_h_14@{tmp_path / 'w.pth'}", mean=(0,) * 3, std=(1,) * 3
    )
    assert opened.input_spec.protocol.canvas_size == (side, side)
    images = torch.rand(2, 3, side, side)
    assert torch.allclose(opened.predict(images), network(images), atol=1e-5)
