"""Published evaluation transforms: torchvision's and timm's own, compared with what nearfar makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models._registry import _model_pretrained_cfgs
from torch import nn
from torchvision.transforms import PILToTensor

from nearfar.classifiers import load_classifier, networks
from nearfar.models import is_ours

#: Width and height: of common photographs, small, square, a strip.
SIZES = ((500, 375), (333, 500), (640, 427), (97, 64), (224, 224), (31, 301))


class InputRecorder(nn.Module):
    """A network that keeps what it is fed, normalised."""

    def __init__(self, pretrained_cfg=None):
        super().__init__()
        self.inputs = []
        self.first = nn.Conv2d(3, 1, 1)
        if pretrained_cfg is not None:
            self.pretrained_cfg = pretrained_cfg

    def forward(self, images):
        self.inputs.append(images.clone())
        return images.mean((2, 3))


def photographs():
    draw = np.random.default_rng(0)
    for width, height in SIZES:
        yield Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


def check(opened, network, transform):
    """Compares what reaches a network's first layer bit for bit; returns of how many images."""
    for image in photographs():
        canvas = opened.input_spec.protocol.render(PILToTensor()(image)[None], 1.0)
        opened.predict(canvas)
        assert torch.equal(network.inputs[-1][0], transform(image)), (opened.name, image.size)
    return len(SIZES)


def torchvision_names():
    return torchvision.models.list_models(module=torchvision.models)


def check_torchvision(name, monkeypatch):
    network = InputRecorder()
    monkeypatch.setattr(networks, "make_network", lambda spec, num_classes: network)
    opened = load_classifier(f"torchvision/{name}@pretrained")
    assert opened.input_spec.assumed == ""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    return check(opened, network, weights.transforms())


def timm_configurations():
    """Every published one that feeds a network otherwise than the others do; some name of it."""
    by_settings = {}
    for name, published in _model_pretrained_cfgs.items():
        cfg = published.to_dict()
        if is_ours(cfg.get("architecture")) or cfg["input_size"][0] != 3:
            continue
        keys = ("crop_mode", "interpolation", "crop_pct", "input_size", "mean", "std")
        settings = resolve_data_config(pretrained_cfg=cfg)
        by_settings.setdefault(tuple(settings[key] for key in keys), (name, cfg, settings))
    return list(by_settings.values())


def check_timm(cfg, settings):
    network = InputRecorder(cfg)
    opened = load_classifier(network)
    assert opened.input_spec.assumed == ""
    return check(opened, network, create_transform(**settings))


@pytest.mark.parametrize(
    "name",
    ["resnet50", "inception_v3", "efficientnet_b4", "efficientnet_v2_l", "swin_v2_t", "googlenet"],
)
def test_torchvision_s_weights(name, monkeypatch):
    check_torchvision(name, monkeypatch)


@pytest.mark.parametrize(
    "name", ["resnet50.a1_in1k", "vit_base_patch16_siglip_224.webli", "test_vit.r160_in1k"]
)
def test_timm_s_weights(name):
    cfg = _model_pretrained_cfgs[name].to_dict()
    check_timm(cfg, resolve_data_config(pretrained_cfg=cfg))


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [None, 96])
def test_timm_s_crop_modes_and_a_size_of_one_s_own(crop_mode, size):
    cfg = {
        "input_size": (3, 160, 160),
        "crop_pct": 0.95,
        "crop_mode": crop_mode,
        "interpolation": "bicubic",
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.4),
    }
    settings = resolve_data_config(pretrained_cfg=cfg)
    if size:
        settings["input_size"] = (3, size, size)
    network = InputRecorder(cfg)
    check(load_classifier(network, size=size), network, create_transform(**settings))


@pytest.mark.slow
def test_all_of_torchvision_s_default_weights(monkeypatch):
    names = torchvision_names()
    assert len(names) >= 80
    compared = sum(check_torchvision(name, monkeypatch) for name in names)
    assert compared == len(names) * len(SIZES)


@pytest.mark.slow
def test_all_of_timm_s_configurations():
    configurations = timm_configurations()
    assert len(configurations) >= 120
    compared = sum(check_timm(cfg, settings) for _, cfg, settings in configurations)
    assert compared == len(configurations) * len(SIZES)
