"""The layers leave the library: torch.export and ONNX, with batch and size left open."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from nearfar import pyramid
from nearfar.layers import (
    DilatedScaleConv2d,
    DiscoConv2d,
    GaussianDerivativeConv2d,
    GaussianScaleSpace,
    PyramidConv2d,
    RieszConv2d,
    ScaleConv2d,
    ScalePool,
    SiCNNConv2d,
    SIConv2d,
    SteerableConv2d,
)


class Sliding(nn.Module):
    """A pyramid, filters sliding over its scales, and the best of them."""

    def __init__(self):
        super().__init__()
        self.slide = ScaleConv2d(3, 8, 3, scale_extent=2, padding=1)

    def forward(self, x):
        return pyramid.collapse(self.slide(pyramid.expand(x, (1, 0.5, 0.25))), "max")


class Mapped(nn.Module):
    """A function without a window at every scale of the map, and the answers side by side."""

    def __init__(self):
        super().__init__()
        self.pool = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2))

    def forward(self, x):
        return pyramid.collapse(pyramid.map(self.pool, pyramid.expand(x, (0.75, 1, 0.5))), "concat")


LAYERS = {
    "si": lambda: SIConv2d(3, 8, 3, padding=1),
    "si, stride 2": lambda: SIConv2d(3, 8, 5, stride=2, padding=2, scales="six"),
    "pyramid": lambda: PyramidConv2d(3, 8, 3, padding=1, levels=2),
    "scale": Sliding,
    "mapped": Mapped,
    "steerable": lambda: nn.Sequential(
        SteerableConv2d(3, 4, 5, padding=2),
        SteerableConv2d(4, 4, 3, stride=2, padding=1, scale_extent=2),
        ScalePool(),
    ),
    "disco": lambda: nn.Sequential(DiscoConv2d(3, 4, 3, padding=1), ScalePool()),
    "dilated": lambda: nn.Sequential(
        GaussianScaleSpace(), DilatedScaleConv2d(3, 4, 3, padding=1), ScalePool()
    ),
    "derivative": lambda: nn.Sequential(
        GaussianDerivativeConv2d(3, 4, 5, padding=2), ScalePool("mean")
    ),
    "columns": lambda: nn.Sequential(SiCNNConv2d(3, 4, 5), ScalePool("concat")),
}
INPUTS = [(2, 3, 24, 32), (1, 3, 16, 16), (5, 3, 41, 19)]


def dynamic():
    dim = torch.export.Dim
    return {
        0: dim("batch", min=1, max=64),
        2: dim("h", min=12, max=256),
        3: dim("w", min=12, max=256),
    }


@pytest.mark.parametrize("name", LAYERS)
def test_torch_export(name):
    layer = LAYERS[name]().eval()
    program = torch.export.export(layer, (torch.randn(INPUTS[0]),), dynamic_shapes=(dynamic(),))
    for shape in INPUTS:
        x = torch.randn(shape)
        torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_onnx(name, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    layer = LAYERS[name]().eval()
    path = tmp_path / "layer.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            layer,
            (torch.randn(INPUTS[0]),),
            path,
            dynamo=True,
            dynamic_shapes=(dynamic(),),
            verbose=False,
        )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (graph_input,) = session.get_inputs()
    for shape in INPUTS:
        x = torch.randn(shape)
        (output,) = session.run(None, {graph_input.name: x.numpy()})
        torch.testing.assert_close(torch.tensor(output), layer(x), rtol=1e-4, atol=1e-4)


def test_riesz_transforms_leave_for_one_size_with_an_open_batch():
    layer = RieszConv2d(3, 4, stride=2).eval()
    batch = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.export.export(layer, (torch.randn(2, 3, 24, 31),), dynamic_shapes=batch)
    x = torch.randn(5, 3, 24, 31)
    torch.testing.assert_close(program.module()(x), layer(x))
