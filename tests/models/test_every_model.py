"""Every name in the registry, found there: none is listed here, so none can be forgotten."""

from __future__ import annotations

import math
import re

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.data import resolve_data_config
from torch import nn

import nearfar
from nearfar.models import Ensemble, HierarchicalNet, WSMSNet, create_model, list_models
from nearfar.training.checkpoint import save_checkpoint

NAMES = list_models()


#: Deeper or wider twins of others here; they go through everything under -m slow.
DEEP = [
    name
    for name in NAMES
    if re.search(r"(32|44|56|110|116|122|k26)_cifar$|resnet1..$|^ms_dense|_wide$", name)
]
QUICK = [name for name in NAMES if name not in DEEP]
BOTH = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in DEEP)]


def test_the_registry_holds_the_papers_networks():
    assert len(NAMES) == len(set(NAMES)) == 66
    assert len(QUICK) == 33
    asked = {
        *("mlp_mnist", "lenet1989", "lenet5", "googlenet", "zfnet", "zfnet_wide"),
        *("alexnet_two_tower", "si_alexnet_two_tower", "pyramid_resnet20_cifar"),
        *("cnn_mnist_scale", "si_mnist_scale", "hierarchical_mnist_scale"),
        *("cnn_tiny", "pyramid_tiny", "scale_tiny"),
        *(f"resnet{d}_cifar" for d in (20, 32, 44, 56, 110, 116, 122)),
        *(f"{way}densenet100_k{k}_cifar" for k in (24, 26) for way in ("", "wsms_", "ms_")),
        *("wsms_resnet110_cifar", "ms_resnet110_cifar"),
        *(f"wsms_resnet{d}" for d in (50, 101, 152)),
    }
    assert asked <= set(NAMES)
    assert list_models("lenet*") == ["lenet5", "lenet1989"]
    # What others keep is theirs: reachable by the same function.
    for name in ("vgg16", "resnet50", "resnet101", "resnet152", "densenet121"):
        assert name not in NAMES
        assert timm.is_model(name)


#: Sides at which a network that takes any size is as good and quicker, by the designed side.
SMALL = {224: 64, 32: 16}


def made(name, sizes="small", **options):
    """A network with images of it: of a ``small`` size, ``designed``, or ``larger`` than designed."""
    torch.manual_seed(0)
    cfg = timm.get_pretrained_cfg(f"nearfar_{name}")
    channels, height, width = cfg.input_size
    if sizes == "larger" and cfg.fixed_input_size:  # such a net is built for its images
        height = width = cfg.input_size[1] * 5 // 4
        options["img_size"] = height
    model = create_model(name, **options)
    any_size = not hasattr(getattr(model, "head", None), "grid")
    if any_size and (sizes == "small" or height == 224):
        height = width = SMALL.get(height, height)
    if sizes == "larger" and not cfg.fixed_input_size:
        height, width = height + height // 7, width + width // 4
    return model, torch.randn(2, channels, height, width)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("sizes", ["designed", "larger"])
def test_forward_and_backward(name, sizes):
    model, x = made(name, sizes, num_classes=3)
    logits = model.train()(x)
    assert logits.shape == (2, 3)
    loss = nn.functional.cross_entropy(logits, torch.tensor([0, 2]))
    assert loss.isfinite()
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    if (
        name != "wsms_over"
    ):  # timm's ResNets begin with norms of zero, behind which nothing learns yet
        moved = [bool(p.grad.abs().sum() > 0) for p in model.parameters()]
        assert sum(moved) > 0.9 * len(moved)


@pytest.mark.parametrize("name", BOTH)
def test_nan_is_not_lost(name):
    """A broken image makes its own answer NaN, not that of its neighbours in the batch."""
    model, x = made(name)
    x[0, 0, x.shape[-2] // 2, x.shape[-1] // 2] = math.nan
    with torch.no_grad():
        answers = model.eval()(x)
    assert answers[0].isnan().any()
    assert answers[1].isfinite().all()


@pytest.mark.parametrize("name", BOTH)
def test_state_dict_round_trip(name, tmp_path):
    model, x = made(name)
    model.eval()
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, model, {})
    torch.manual_seed(1)
    other = create_model(name).eval()
    with torch.no_grad():
        before, expected = other(x), model(x)
        assert not torch.equal(before, expected)
        nearfar.load_weights(other, path)
        assert torch.equal(other(x), expected)
    # Tensors that are shared between places are stored once.
    stored = sum(t.numel() for t in load_file(path).values())
    buffers = sum(b.numel() for n, b in model.named_buffers() if n in model.state_dict())
    assert stored == sum(p.numel() for p in model.parameters()) + buffers


@pytest.mark.parametrize("name", BOTH)
def test_torch_export_with_an_open_batch(name):
    model, x = made(name)
    model.eval()
    open_batch = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(model, (x,), dynamic_shapes=open_batch).module()
    for given in (x, torch.cat([x, x[:1]])):
        with torch.no_grad():
            expected = model(given)
            # Deep nets with fresh statistics answer in large numbers.
            size = float(expected.abs().max())
            torch.testing.assert_close(program(given), expected, rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize("name", QUICK)
def test_what_timm_s_users_expect(name):
    model, x = made(name)
    model.eval()
    cfg = model.pretrained_cfg
    assert cfg["architecture"] == f"nearfar_{name}"
    assert resolve_data_config({}, model=model)["input_size"] == cfg["input_size"]
    if name != "wsms_over":  # whose first convolution is its backbone's
        weight = model.get_submodule(several(cfg["first_conv"])[0]).weight
        assert weight.shape[1] in (cfg["input_size"][0], math.prod(cfg["input_size"]))
    classifiers = several(model.get_classifier())
    assert tuple(map(model.get_submodule, several(cfg["classifier"]))) == classifiers
    assert {c.out_features for c in classifiers} == {model.num_classes} == {cfg["num_classes"]}
    with torch.no_grad():
        logits = model(x)
        features = model.forward_features(x)
        assert torch.equal(model.forward_head(features), logits)
        flat = model.forward_head(features, pre_logits=True)
        if not isinstance(model, HierarchicalNet | Ensemble):
            assert flat.shape == (2, model.head_hidden_size)
            torch.testing.assert_close(model.get_classifier()(flat), logits)
        model.reset_classifier(0)
        torch.testing.assert_close(model(x), flat)
        model.reset_classifier(4)
        assert model(x).shape == (2, 4)
        assert model.num_classes == 4


def several(one_or_more):
    return one_or_more if isinstance(one_or_more, tuple) else (one_or_more,)


def has_stages(name):
    whole = ("ensemble", "hierarchical_cnn", "hierarchical_resnet", "mlp", "zoom")
    return not name.startswith(whole)


@pytest.mark.parametrize("name", [name for name in QUICK if has_stages(name)])
def test_features_only(name):
    _, x = made(name)
    net = timm.create_model(f"nearfar_{name}", features_only=True)
    maps = net.eval()(x)
    assert len(maps) == len(net.feature_info.channels())
    for found, width, step in zip(
        maps, net.feature_info.channels(), net.feature_info.reduction(), strict=True
    ):
        assert found.shape[:2] == (2, width)
        # Unpadded convolutions lose a border.
        assert x.shape[-1] / step - 5 <= found.shape[-1] <= math.ceil(x.shape[-1] / step)
    last = timm.create_model(f"nearfar_{name}", features_only=True, out_indices=(-1,))
    last.load_state_dict(net.state_dict(), strict=False)
    torch.testing.assert_close(last.eval()(x)[0], maps[-1])
    first = timm.create_model(f"nearfar_{name}", features_only=True, out_indices=(0,))
    kept = dict(first.named_parameters())
    assert not any(".head." in key for key in kept)
    first(x)[0].sum().backward()
    if not name.startswith(("wsms", "ms")):  # whose stages run side by side
        assert all(parameter.grad is not None for parameter in kept.values())


def test_nets_without_stages_say_so():
    for name in ("hierarchical_cnn_small", "mlp_mnist"):
        with pytest.raises(nearfar.InputError, match="has no stages to take features from"):
            timm.create_model(f"nearfar_{name}", features_only=True)


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(("wsms", "ms_"))])
def test_weight_shared_stages_share_storage_and_gradient(name):
    model = create_model(name)
    assert isinstance(model, WSMSNet)
    first = {id(p) for p in model.towers[0].parameters()}
    for tower in model.towers[1:]:
        for module in tower.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                assert (id(module.weight) in first) == name.startswith("wsms")
            if isinstance(module, nn.BatchNorm2d):
                assert id(module.weight) not in first
