"""Weights from a file, whoever wrote it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional as T

from nearfar import InputError, load_weights
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
        ("noweights.pth", "got a dictionary with epoch, lr"),
        ("less.pth", "lacks head.fc.bias, head.fc.weight"),
        ("more.pth", "has unknown extra"),
        ("seven.pth", r"head.fc.weight is \(7, 64\) where \(10, 64\) is needed"),
    ]:
        with pytest.raises(InputError, match=message):
            load_weights(net, tmp_path / name)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
