"""torch.jit.trace: networks become files that run without nearfar, for images of the traced size."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch

from nearfar.conversion import convert_network
from nearfar.layers import AntialiasedMaxPool2d, PyramidConv2d, SIConv2d
from nearfar.models import FCN, HierarchicalNet, create_model

NETWORKS = {
    "si": lambda: SIConv2d(3, 8, 5, stride=2, padding=2),
    "pyramid": lambda: PyramidConv2d(3, 8, 3, padding=1),
    "blurred pool": lambda: AntialiasedMaxPool2d(3, 2, ceil_mode=True),
    "wsms": lambda: create_model("wsms_resnet20_cifar", num_classes=10),
    "hierarchical": lambda: HierarchicalNet(create_model("cnn_small", in_chans=3), (0.5, 1, 1.5)),
    "fcn": lambda: FCN(create_model("resnet20_cifar"), num_classes=5, skips=2),
    "converted": lambda: convert_network(create_model("resnet20_cifar"), "si", 32)[0],
}
RUN = """
import sys, torch
net, images, out = sys.argv[1:]
torch.save(torch.jit.load(net)(torch.load(images)), out)
"""


@pytest.mark.parametrize("name", NETWORKS)
def test_a_traced_network_gives_the_same_without_nearfar(name, tmp_path):
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    images = torch.randn(2, 3, 40, 32)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
        traced = torch.jit.trace(network, images)
        traced.save(tmp_path / "net.pt")
        others = torch.randn(2, 3, 40, 32)
        expected = network(others)
    torch.save(others, tmp_path / "images.pt")
    paths = [str(tmp_path / file) for file in ("net.pt", "images.pt", "out.pt")]
    subprocess.run([sys.executable, "-W", "ignore", "-I", "-c", RUN, *paths], check=True)
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), expected, rtol=1e-4, atol=1e-5)
