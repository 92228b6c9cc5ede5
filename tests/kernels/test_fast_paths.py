"""The fast paths against the composition that the algebra defines."""

from __future__ import annotations

import importlib
import threading
import warnings
from functools import partial

import naive
import pytest
import torch
from forcing import forced
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from nearfar.functional import si_conv2d
from nearfar.grid import Window, level_size
from nearfar.kernels import can_use_fast_path, plan, reference_only
from nearfar.kernels.composition import Composition
from nearfar.layers import PyramidConv2d, ScaleConv2d, SIConv2d
from nearfar.pyramid import collapse, expand
from nearfar.scale_sets import SCALE_SETS

ENGINES = ["dense", "numba_engine"]


POOL = [0.2, 0.4, 0.5, 0.6, 0.75, 0.88, 1.0, 1.16, 1.3333, 1.5, 1.72, 2.0, 2.5, 3.0, 4.0]


@st.composite
def cases(draw, largest):
    groups = draw(st.sampled_from([1, 1, 2]))
    same = draw(st.booleans())  # the commonest layers, in half of all cases
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    size = (draw(st.integers(1, largest)), draw(st.integers(1, largest)))
    case = {
        "x": (draw(st.integers(0, 3)), groups * draw(st.integers(1, 3)), *size),
        "out": groups * draw(st.integers(1, 3)),
        "groups": groups,
        "kernel": kernel,
        "stride": 1 if same else draw(st.integers(1, 3)),
        "padding": tuple(k // 2 for k in kernel) if same else draw(st.integers(0, 4)),
        "dilation": 1 if same else draw(st.integers(1, 2)),
        "scales": draw(st.lists(st.sampled_from(POOL), min_size=1, max_size=7)),
        "antialias": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "channels_last": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float64, torch.float64, torch.float32])),
        "engine": draw(st.sampled_from(ENGINES)),
        "way": draw(st.sampled_from(["level", "taps", "taps"])),
        "budget": draw(st.sampled_from([1 << 10, 1 << 20])),
    }
    window = Window.make(kernel, case["stride"], case["padding"], case["dilation"])
    for scale in (1.0, *case["scales"]):
        h, w = level_size(size[0], scale), level_size(size[1], scale)
        assume(min(h, w) > 0)
        assume(window.output_size(h, 0) > 0 and window.output_size(w, 1) > 0)
    return case


def compare(case):
    torch.manual_seed(0)
    x = torch.randn(case["x"], dtype=case["dtype"])
    if case["channels_last"]:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(
        case["out"], x.shape[1] // case["groups"], *case["kernel"], dtype=case["dtype"]
    )
    bias = torch.randn(case["out"], dtype=case["dtype"]) if case["bias"] else None
    leaves = [t.requires_grad_() for t in (x, weight, bias) if t is not None]
    options = {
        "stride": case["stride"],
        "padding": case["padding"],
        "dilation": case["dilation"],
        "groups": case["groups"],
        "scales": case["scales"],
        "antialias": case["antialias"],
    }

    def run():
        y, winner = si_conv2d(x, weight, bias, **options, return_winner=True)
        g = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
        return y, winner, torch.autograd.grad((y * g).sum(), leaves)

    with forced(case["engine"], case["way"], case["budget"]):
        y, winner, gradients = run()
        with torch.no_grad():  # where no rank is kept
            torch.testing.assert_close(si_conv2d(x, weight, bias, **options), y)
    with reference_only():
        y_ref, winner_ref, gradients_ref = run()
    exact = case["dtype"] == torch.float64
    # Relative to the map: single elements are small by cancellation, and rounding does not cancel.
    within = (1e-9 if exact else 1e-5) * float(y_ref.detach().abs().max()) if y.numel() else 1.0
    tolerance = {"rtol": 0.0, "atol": max(within, 1e-30)}
    torch.testing.assert_close(y, y_ref, **tolerance)
    if exact:
        # Where two scales tie to the last bits, rounding decides; the winner's answer is the maximum.
        with reference_only(), torch.no_grad():
            alone = [
                si_conv2d(x, weight, bias, **{**options, "scales": (s,)}) for s in case["scales"]
            ]
        claimed = torch.stack(alone).gather(0, winner.long()[None])[0]
        torch.testing.assert_close(claimed, y_ref, **tolerance)
        if torch.equal(winner, winner_ref):
            for a, b in zip(gradients, gradients_ref, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
@given(cases(16))
def test_it_is_the_composition(case):
    compare(case)


@pytest.mark.slow
@settings(max_examples=2000, suppress_health_check=[HealthCheck.filter_too_much])
@given(cases(40))
def test_it_is_the_composition_searched_widely(case):
    compare(case)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", ["level", "taps"])
@pytest.mark.parametrize("scales", [(0.5, 1, 2), (2, 1.5, 0.7)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_gradients(engine, way, scales, stride, dilation):
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def through(x, weight, bias):
        return si_conv2d(x, weight, bias, stride, dilation, dilation, 2, scales=scales)

    assert can_use_fast_path(x, weight)
    with forced(engine, way):
        assert torch.autograd.gradcheck(through, (x, weight, bias))
        if (engine, way) == ("numba_engine", "taps"):  # second derivatives take one way for all
            assert torch.autograd.gradgradcheck(through, (x, weight, bias), fast_mode=True)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", ["level", "taps"])
@pytest.mark.parametrize("antialias", [True, False])
def test_it_is_what_the_formulas_say(engine, way, antialias):
    """Against loops that know nothing of this library."""
    x = torch.randn(2, 2, 7, 9, dtype=torch.float64)
    weight = torch.randn(4, 1, 3, 2, dtype=torch.float64)
    scales = (0.5, 1.0, 1.72)
    with forced(engine, way):
        y, winner = si_conv2d(
            x, weight, None, 2, 1, 1, 2, scales=scales, antialias=antialias, return_winner=True
        )
    for i in range(2):
        best, index, _ = naive.si_convolve(
            x[i].numpy(),
            weight.numpy(),
            None,
            scales,
            (2, 2),
            ((1, 1), (1, 1)),
            (1, 1),
            2,
            antialias,
        )
        torch.testing.assert_close(y[i], torch.tensor(best))
        assert torch.equal(winner[i].long(), torch.tensor(index))


def test_the_plan_takes_what_is_cheaper():
    def shared(size, channels, kernel, scales, engine="numba_engine"):
        window = Window.make(kernel, 1, kernel // 2)
        numbers = tuple(range(len(scales)))
        composition = Composition(window, 1, scales, numbers, True, "max")
        rates = importlib.import_module(f"nearfar.kernels.{engine}").CPU
        return plan.make_plan(size, composition, channels, rates).shared

    octave = SCALE_SETS["octave"]
    assert shared((13, 13), (256, 384), 3, octave) == (0, 1, 2, 3, 4)  # mixing is all that counts
    assert set(shared((28, 28), (32, 64), 5, octave)) >= {3, 4}  # enlarged levels cost most
    assert shared((28, 28), (3, 64), 7, octave) == ()  # few input channels: levels are cheap
    assert shared((28, 28), (64, 4), 3, octave) == ()  # rows too short
    assert shared((28, 28), (64, 64), 3, (0.25, 0.5)) == ()  # small levels: cheaper than one mixing


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_share_what_is_kept(engine):
    """Fresh plans, used by several threads at once: the first to prepare lists must not lose them."""
    weight = torch.randn(16, 3, 3, 3)
    inputs = [torch.randn(2, 3, 9 + i, 12) for i in range(6)]
    with reference_only():
        expected = [si_conv2d(x, weight, padding=1) for x in inputs]
    actual = {}

    def work(me):
        with torch.no_grad():
            actual[me] = [si_conv2d(x, weight, padding=1) for x in inputs * 5]

    with forced(engine, "taps"):
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for outputs in actual.values():
        for y, right in zip(outputs, expected * 5, strict=True):
            torch.testing.assert_close(y, right, rtol=1e-4, atol=1e-4)
    assert len(actual) == 4


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_show(threads):
    before = torch.get_num_threads()
    x = torch.randn(4, 3, 10, 10, dtype=torch.float64, requires_grad=True)
    layer = SIConv2d(3, 8, 3, padding=1, dtype=torch.float64)
    with reference_only():
        expected = torch.autograd.grad(layer(x).square().sum(), [x, layer.weight])
    torch.set_num_threads(threads)
    try:
        actual = torch.autograd.grad(layer(x).square().sum(), [x, layer.weight])
        with torch.inference_mode():
            torch.testing.assert_close(layer(x), layer(x.detach()[:, :, :, :]))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_not_a_number_is_not_lost():
    x = torch.randn(1, 3, 9, 9)
    x[0, 0, 4, 4] = torch.nan
    y = si_conv2d(x, torch.randn(8, 3, 3, 3), padding=1)
    assert y[0, :, 4, 4].isnan().all()


@pytest.mark.parametrize("needed", [(True, False), (False, True)])
def test_only_the_gradients_that_are_needed(needed):
    x = torch.randn(2, 2, 6, 6).requires_grad_(needed[0])
    weight = torch.randn(2, 2, 3, 3).requires_grad_(needed[1])
    y = si_conv2d(x, weight, padding=1)
    y.sum().backward()
    with reference_only():
        (expected,) = torch.autograd.grad(
            si_conv2d(x, weight, padding=1).sum(), [x if needed[0] else weight]
        )
    torch.testing.assert_close((x if needed[0] else weight).grad, expected, rtol=1e-4, atol=1e-4)
    assert (x.grad is None, weight.grad is None) == (not needed[0], not needed[1])


def test_backward_twice_through_one_graph():
    x = torch.randn(1, 2, 6, 6, requires_grad=True)
    y = si_conv2d(x, torch.randn(2, 2, 3, 3), padding=1)
    (once,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    (twice,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(once, twice)


def test_portions_do_not_show(monkeypatch):
    import nearfar.kernels.levels as module

    x = torch.randn(7, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    layer = SIConv2d(3, 4, 3, padding=1, dtype=torch.float64)
    actual = []
    for portion in (1, 4 * 64 * 3, 1 << 20):
        monkeypatch.setattr(module, "_PORTION", portion)
        for engine in ENGINES:
            for way in ("level", "taps"):
                with forced(engine, way, portion):
                    y = layer(x)
                    actual.append((y, *torch.autograd.grad(y.square().sum(), [x, layer.weight])))
    for other in actual[1:]:
        for a, b in zip(actual[0], other, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    layer = SIConv2d(3, 4, 3, padding=1)
    x = torch.randn(2, 3, 8, 8)
    half = si_conv2d(x.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype), padding=1)
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), layer(x), atol=0.05, rtol=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x.requires_grad_())
    y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    with reference_only(), torch.autocast("cpu", dtype=torch.bfloat16):
        (expected,) = torch.autograd.grad(layer(x).float().sum(), [layer.weight])
    assert (
        torch.corrcoef(torch.stack([layer.weight.grad.flatten(), expected.flatten()]))[0, 1] > 0.95
    )


@pytest.mark.parametrize("operator", [SIConv2d, partial(PyramidConv2d, levels=2)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("images_last", [False, True])
@pytest.mark.parametrize("weights_last", [False, True])
def test_the_layout_of_the_output_is_that_of_a_convolution(
    operator, channels, images_last, weights_last
):
    x = torch.randn(2, channels, 8, 8)
    layers = [operator(channels, 4, 3, padding=1), nn.Conv2d(channels, 4, 3, padding=1)]
    if images_last and channels > 1:
        x = x.to(memory_format=torch.channels_last)
    for layer in layers:
        if weights_last:
            layer.weight.data = layer.weight.data.to(memory_format=torch.channels_last)
    ours, plain = (layer(x) for layer in layers)
    assert ours.stride() == plain.stride()
    if not (images_last or weights_last):
        assert ours.view(2, -1).shape == (2, 256)


def test_function_transforms():
    layer = SIConv2d(2, 3, 3, padding=1, dtype=torch.float64)
    x = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    each = torch.func.vmap(lambda one: layer(one[None])[0])(x)
    torch.testing.assert_close(each, layer(x))
    tangent = torch.randn_like(x)
    _, moved = torch.func.jvp(layer, (x,), (tangent,))
    epsilon = 1e-6
    numeric = (layer(x + epsilon * tangent) - layer(x - epsilon * tangent)) / (2 * epsilon)
    torch.testing.assert_close(moved, numeric, rtol=1e-5, atol=1e-5)
    by_func = torch.func.grad(lambda x: layer(x).square().sum())(x)
    (by_autograd,) = torch.autograd.grad(layer(x.requires_grad_()).square().sum(), x)
    torch.testing.assert_close(by_func, by_autograd)


def test_fake_and_meta_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        layer = SIConv2d(3, 4, 3, stride=2)
        assert layer(torch.empty(2, 3, 9, 8)).shape == (2, 4, 4, 3)


def test_deterministic_mode():
    layer, x = SIConv2d(3, 4, 3, padding=1), torch.randn(2, 3, 8, 8, requires_grad=True)
    torch.use_deterministic_algorithms(True)
    try:
        runs = [torch.autograd.grad(layer(x).sum(), x)[0] for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*runs)


def test_copies_and_pickles():
    import copy
    import pickle

    layer, x = SIConv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))


@pytest.mark.parametrize("name", SCALE_SETS)
def test_named_sets(name):
    layer, x = SIConv2d(3, 4, 5, padding=2, scales=name), torch.randn(2, 3, 28, 28)
    with reference_only():
        expected = layer(x)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["si", "pyramid", "sliding"])
def test_compile_sees_one_graph(kind):
    class Sliding(nn.Module):
        def __init__(self):
            super().__init__()
            self.slide = ScaleConv2d(3, 4, 3, scale_extent=2, padding=1)

        def forward(self, x):
            return collapse(self.slide(expand(x, (1, 0.5, 0.25))), "max")

    layer = {
        "si": lambda: SIConv2d(3, 4, 3, padding=1),
        "pyramid": lambda: PyramidConv2d(3, 4, 3, padding=1, levels=2),
        "sliding": Sliding,
    }[kind]()
    x = torch.randn(2, 3, 9, 8, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(layer, fullgraph=True)
        y, right = compiled(x), layer(x)
        torch.testing.assert_close(y, right, rtol=1e-4, atol=1e-5)
        (actual,) = torch.autograd.grad(y.square().sum(), x)
    (expected,) = torch.autograd.grad(right.square().sum(), x)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)
