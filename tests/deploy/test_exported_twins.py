"""Networks of timm's and their scale-aware twins leave as they are, with open sizes."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from nearfar.classifiers import load_classifier
from nearfar.conversion import convert_network
from nearfar.deploy import export

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

NETWORKS = ("resnet18", "convnext_atto", "efficientnet_b0")
METHODS = ("plain", "si", "pyramid-ensemble", "antialias", "wsms")
FIGURES = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def twin(name, method):
    """A random network of timm's, converted."""
    network = timm.create_model(name, num_classes=10).eval()
    if method == "plain":
        return network
    # ConvNeXt halves its maps with patches, which are antialiased only where they are named.
    patches = name == "convnext_atto" and method == "antialias"
    layers = {"layers": ["stages.*.downsample.1"]} if patches else {}
    network, _ = convert_network(network, {"method": method, **layers})
    if method == "wsms":  # its later stages are read with zeros until they are trained
        nn.init.normal_(network.get_classifier().weight, std=0.02)
    return network


def check(name, method, ending, folder):
    network = twin(name, method)
    figures = {} if getattr(network, "pretrained_cfg", None) else FIGURES
    opened = load_classifier(network, size=64, **figures)
    result = export(opened, folder / f"twin.{ending}")
    assert result.openness.batch
    assert result.openness.image
    assert result.input_spec.any_size
    assert result.notes == ()
    assert result.error < 1e-4
    # ConvNeXt's first patches do not fit on half of the smallest images.
    assert len(result.shapes) >= 3
    # Sizes that were not among those compared on export.
    again = load_classifier(result.path)
    assert again.module is None or ending == "pt2"
    for shape in ((2, 3, 96, 70), (1, 3, 129, 131)):
        images = torch.rand(shape)
        torch.testing.assert_close(
            again.predict(images), opened.predict(images), rtol=1e-4, atol=1e-5
        )
    return result


@pytest.mark.parametrize("method", ["wsms", "pyramid-ensemble", "antialias"])
def test_a_converted_resnet_leaves_with_open_sizes(method, tmp_path):
    check("resnet18", method, "pt2", tmp_path)


def test_a_resnet_leaves_as_onnx(tmp_path):
    check("resnet18", "antialias", "onnx", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_twin_leaves_with_open_sizes(name, method, ending, tmp_path):
    check(name, method, ending, tmp_path)
