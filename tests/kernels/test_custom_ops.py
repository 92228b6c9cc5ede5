"""Compiled networks call the operators as operators of their own, and are what they are without compiling."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn

from nearfar.functional import pyramid_conv2d, si_conv2d
from nearfar.grid import Window
from nearfar.kernels import custom_ops
from nearfar.kernels.composition import Composition
from nearfar.layers import PyramidConv2d, SIConv2d

LAYERS = {
    "six scales": lambda **o: SIConv2d(4, 12, 3, padding=1, scales="six", **o),
    "stride, groups": lambda **o: SIConv2d(4, 12, 5, stride=2, padding=2, groups=2, **o),
    "dilation, no bias": lambda **o: SIConv2d(4, 12, 3, dilation=2, bias=False, **o),
    "uneven padding": lambda **o: SIConv2d(4, 12, (2, 3), padding="same", **o),
    "pyramid": lambda **o: PyramidConv2d(4, 12, 3, padding=1, **o),
}


class Graphs:
    """A compiler that keeps what it was given and runs it as it is."""

    def __init__(self):
        self.graphs = []

    def __call__(self, graph, inputs):
        self.graphs.append(graph)
        return graph.forward

    def operators(self):
        return [
            str(node.target) for graph in self.graphs for node in graph.graph.nodes
            if node.op == "call_function"
        ]  # fmt: skip


def compiled(layer, backend="aot_eager", **options):
    torch.compiler.reset()
    return torch.compile(layer, fullgraph=True, backend=backend, **options)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():  # Dynamo's own about functions with a cache
        warnings.simplefilter("ignore")
        yield


def results(function, layer, x):
    """Output and all gradients."""
    x = x.detach().requires_grad_()
    y = function(x)
    weights = list(layer.parameters())
    g = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y.detach(), *torch.autograd.grad(y, [x, *weights], g)]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_compiled_layer_gives_the_same(name, dtype):
    torch.manual_seed(0)
    layer, x = LAYERS[name](dtype=dtype), torch.randn(2, 4, 32, 24, dtype=dtype)
    function = compiled(layer)
    for images in (x, torch.randn(3, 4, 41, 28, dtype=dtype)):
        actual, expected = results(function, layer, images), results(layer, layer, images)
        # Sums over some thousand numbers in another order; in float64 the digits agree.
        tolerance = dict.fromkeys(
            ("rtol", "atol"), {torch.float32: 1e-4, torch.float64: 1e-9}.get(dtype, 2e-2)
        )
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, other, **tolerance)


def test_a_compiled_layer_is_one_operator():
    graphs = Graphs()
    layer = SIConv2d(4, 12, 3, padding=1)
    compiled(layer, graphs)(torch.randn(2, 4, 16, 16))
    assert [name for name in graphs.operators() if "getitem" not in name] == [
        "nearfar.scale_convolution.default"
    ]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layouts_are_those_of_the_layer(layout):
    layer = SIConv2d(4, 12, 3, padding=1)
    x = torch.randn(2, 4, 16, 16).contiguous(memory_format=layout)
    y = compiled(layer)(x)
    assert y.stride() == layer(x).stride()
    torch.testing.assert_close(y, layer(x))


def test_the_winner_is_the_same():
    x, weight = torch.randn(2, 4, 20, 20), torch.randn(12, 4, 3, 3)

    def both(x, weight):
        return si_conv2d(x, weight, padding=1, scales=(2, 0.5, 1), return_winner=True)

    for actual, expected in zip(compiled(both)(x, weight), both(x, weight), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stays_where_the_definition_puts_it(value):
    layer, x = SIConv2d(4, 12, 3, padding=1), torch.randn(2, 4, 20, 20)
    x[0, 1, 7, 9] = value
    for one, other in zip(
        results(compiled(layer), layer, x), results(layer, layer, x), strict=True
    ):
        torch.testing.assert_close(one, other, equal_nan=True)


def test_autocast_reaches_the_operator():
    layer, x = SIConv2d(4, 12, 3, padding=1), torch.randn(2, 4, 20, 20)
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = compiled(layer)(x), layer(x)
    assert y.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("how", ["max", "concat"])
@pytest.mark.parametrize("padding", [1, "same"])
def test_the_operators_keep_pytorch_s_rules(how, padding):
    torch.manual_seed(0)
    window = Window.make((4, 3) if padding == "same" else (3, 3), padding=padding)
    composition = Composition(window, 1, (0.5, 1.0), (0, 1), True, how)
    x = torch.randn(2, 3, 12, 10, requires_grad=True)
    weight = torch.randn(8, 3, *window.kernel, requires_grad=True)
    bias = torch.randn(8, requires_grad=True)
    constants = custom_ops._constants(composition)
    torch.library.opcheck(custom_ops._forward, (x, weight, bias, *constants, how == "max"))


def test_gradients_of_some_alone():
    layer, x = SIConv2d(4, 12, 3, padding=1), torch.randn(2, 4, 16, 16)
    layer.weight.requires_grad_(False)
    compiled(layer)(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((12,), 2.0 * 16 * 16))
    layer.requires_grad_(False)
    assert not compiled(layer)(x).requires_grad


def test_a_kernel_that_fits_nowhere_is_refused_in_a_compiled_network_too():
    with pytest.raises(Exception, match="kernel is larger than the"):
        compiled(lambda x, w: pyramid_conv2d(x, w))(
            torch.randn(1, 3, 9, 9), torch.randn(4, 3, 3, 3)
        )


class Net(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.fc = layer, nn.Linear(layer(torch.zeros(1, 4, 32, 24)).shape[1], 5)

    def forward(self, x):
        return self.fc(self.layer(x).relu().amax((2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_inductor_trains_with_it(name):
    torch.manual_seed(0)
    net, x = Net(LAYERS[name]()), torch.randn(2, 4, 32, 24)
    for one, other in zip(
        results(compiled(net, "inductor"), net, x), results(net, net, x), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
