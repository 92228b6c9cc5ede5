"""A classifier at another side of its input."""

from __future__ import annotations

import dataclasses

import pytest
import timm
import torch
from torch import nn

from nearfar.classifiers import Classifier, InputSpec, load_classifier
from nearfar.classifiers.resizing import at_side, patch_of
from nearfar.data import ScaleProtocol
from nearfar.errors import InputError


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=5).eval()


def by_hand(vit, images):
    """A ViT's answer where its positions are interpolated without timm."""
    vit = timm.create_model("test_vit", num_classes=5, img_size=images.shape[-1]).eval(), vit
    new, old = vit
    state = old.state_dict()
    positions, prefix = state["pos_embed"], old.num_prefix_tokens
    side, grid = round((positions.shape[1] - prefix) ** 0.5), new.patch_embed.grid_size
    maps = positions[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    maps = nn.functional.interpolate(maps, grid, mode="bicubic", antialias=True)
    state["pos_embed"] = torch.cat([positions[:, :prefix], maps.flatten(2).mT], 1)
    new.load_state_dict(state)
    return new(images)


def test_positions_of_a_transformer_are_interpolated(vit):
    opened = load_classifier(vit)
    own = opened.input_spec.protocol.canvas_size[0]
    mean, std = (torch.tensor(vit.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    first = torch.rand(2, 3, own, own)
    before = opened.predict(first)
    for side in (own // 2, own + 32):
        images = torch.rand(2, 3, side, side)
        with torch.no_grad():
            expected = by_hand(vit, (images - mean) / std)
        resized = at_side(opened, side)
        torch.testing.assert_close(resized.predict(images), expected, atol=1e-5, rtol=1e-4)
        assert resized.input_spec.protocol.canvas_size == (side, side)
    assert torch.equal(opened.predict(first), before)
    weights = dict(opened.module.named_parameters())
    shared = [n for n, p in resized.module.named_parameters() if weights[n] is p]
    assert len(shared) == len(weights) - 1  # all but the positions


def test_windows_of_swin_follow(vit):
    net = timm.create_model(
        "swin_tiny_patch4_window7_224",
        num_classes=5,
        img_size=64,
        window_size=4,
        embed_dim=12,
        depths=(1, 1),
        num_heads=(1, 2),
    ).eval()
    opened = load_classifier(net, size=64)
    first = torch.rand(1, 3, 64, 64)
    before = opened.predict(first)
    assert at_side(opened, 96).predict(torch.rand(2, 3, 96, 96)).shape == (2, 5)
    assert torch.equal(opened.predict(first), before)


def test_a_side_that_patches_do_not_divide_is_refused(vit):
    opened = load_classifier(vit)
    assert patch_of(opened) == 16
    with pytest.raises(InputError, match="patches are 16×16 pixels, .* such as 96 or 112"):
        at_side(opened, 100)


def test_the_publisher_s_share_is_kept():
    net = timm.create_model("resnet18", num_classes=4)
    net.pretrained_cfg = {**net.pretrained_cfg, "crop_pct": 0.95}
    opened = load_classifier(net)
    protocol = at_side(opened, 288).input_spec.protocol
    assert (protocol.canvas_size, protocol.content_size) == ((288, 288), (303, 303))  # 288 / 0.95
    assert at_side(opened, 224) is opened
    cropped = load_classifier(net, crop_pct=1.0)
    assert at_side(cropped, 96).input_spec.protocol.content_size == (96, 96)


def test_without_a_publisher_content_keeps_its_share():
    spec = InputSpec("f", 3, ScaleProtocol(48, 16), 2)
    opened = Classifier(spec, lambda images: images.mean((2, 3))[:, :2])
    assert at_side(opened, 72).input_spec.protocol == ScaleProtocol(72, 24)


def test_what_is_fixed_is_refused():
    spec = InputSpec("f", 3, ScaleProtocol(48, 16), 2, any_size=False)
    opened = Classifier(spec, lambda images: images.mean((2, 3))[:, :2])
    with pytest.raises(InputError, match="the size of its input is fixed to 48×48; export it with"):
        at_side(opened, 64)
    wide = dataclasses.replace(spec, protocol=ScaleProtocol((48, 64), 16), any_size=True)
    with pytest.raises(InputError, match="takes images of 48×64, and has no one side"):
        at_side(dataclasses.replace(opened, input_spec=wide), 64)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    flat.in_chans = 3
    with pytest.raises(InputError, match="does not take images of 3×32×32: mat1 and mat2"):
        at_side(load_classifier(flat, size=16), 32)
