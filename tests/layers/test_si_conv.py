from __future__ import annotations

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nearfar.errors import InputError
from nearfar.functional import si_conv2d
from nearfar.grid import Window
from nearfar.layers import SIConv2d

SCALES = [0.4, 0.5, 0.75, 1.0, 1.3, 1.5, 2.0]


@st.composite
def cases(draw):
    groups = draw(st.sampled_from([1, 1, 2]))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    return {
        "groups": groups,
        "channels": (groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))),
        "kernel": kernel,
        "stride": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "padding": (draw(st.integers(0, 3)), draw(st.integers(0, 3))),
        "dilation": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "size": (draw(st.integers(1, 9)), draw(st.integers(1, 9))),
        "scales": draw(st.lists(st.sampled_from(SCALES), min_size=1, max_size=4)),
        "antialias": draw(st.booleans()),
        "bias": draw(st.booleans()),
    }


def fits(case, scale):
    window = Window.make(case["kernel"], case["stride"], case["padding"], case["dilation"])
    sizes = [naive.level_size(n, scale) for n in case["size"]]
    return min(sizes) > 0 and min(window.output_size(n, a) for a, n in enumerate(sizes)) > 0


@settings(max_examples=150)
@given(cases())
def test_it_is_the_naive_definition(case):
    if not all(fits(case, s) for s in [1.0, *case["scales"]]):
        return  # refusals and left-out levels have tests of their own
    c_in, c_out = case["channels"]
    groups = case["groups"]
    x = torch.randn(1, c_in, *case["size"], dtype=torch.float64)
    weight = torch.randn(c_out, c_in // groups, *case["kernel"], dtype=torch.float64)
    bias = torch.randn(c_out, dtype=torch.float64) if case["bias"] else None
    geometry = (case["stride"], case["padding"], case["dilation"], groups)
    out, winner = si_conv2d(
        x,
        weight,
        bias,
        *geometry,
        scales=case["scales"],
        antialias=case["antialias"],
        return_winner=True,
    )
    expected, expected_winner, levels = naive.si_convolve(
        x[0].numpy(),
        weight.numpy(),
        None if bias is None else bias.numpy(),
        case["scales"],
        case["stride"],
        tuple((p, p) for p in case["padding"]),
        case["dilation"],
        groups,
        case["antialias"],
    )
    torch.testing.assert_close(out[0], torch.tensor(expected))
    margin = np.sort(levels, axis=0)
    clear = np.ones_like(expected, bool) if len(levels) == 1 else margin[-1] - margin[-2] > 1e-9
    assert (winner[0].numpy() == expected_winner)[clear].all()


@pytest.mark.parametrize("reduce", ["mean", "logsumexp"])
def test_other_reductions(reduce):
    x = torch.randn(1, 2, 6, 7, dtype=torch.float64)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    zeros = ((1, 1), (1, 1))
    _, _, levels = naive.si_convolve(
        x[0].numpy(), weight.numpy(), None, (0.5, 1, 2), (2, 2), zeros, (1, 1), 1, True
    )
    stacked = torch.tensor(levels)
    expected = stacked.mean(0) if reduce == "mean" else stacked.logsumexp(0)
    output = si_conv2d(x, weight, None, 2, 1, scales=(0.5, 1, 2), reduce=reduce)
    torch.testing.assert_close(output[0], expected)


def test_gradients():
    x = torch.randn(2, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def through(x, weight, bias):
        return si_conv2d(x, weight, bias, 2, 1, scales=(0.5, 1, 1.5))

    assert torch.autograd.gradcheck(through, (x, weight, bias))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": "same", "dilation": 2},
        {"padding": 2, "padding_mode": "reflect", "groups": 2},
        {"padding": (0, 1), "bias": False},
    ],
)
def test_at_scale_one_alone_it_is_the_plain_convolution_bit_for_bit(options):
    plain = nn.Conv2d(4, 6, 3, **options)
    layer = SIConv2d(4, 6, 3, **options, scales=(1,))
    assert layer.state_dict().keys() == plain.state_dict().keys()
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(2, 4, 9, 11)
    assert torch.equal(layer(x), plain(x))
    plain.load_state_dict(layer.state_dict())


def test_the_seed_gives_it_the_plain_convolution_s_weights():
    torch.manual_seed(3)
    plain = nn.Conv2d(4, 6, 5)
    torch.manual_seed(3)
    assert torch.equal(SIConv2d(4, 6, 5).weight, plain.weight)


def blob(size, centre, radius):
    at = torch.arange(size, dtype=torch.float64) + 0.5
    one = torch.exp(-((at - centre) ** 2) / (2 * radius**2))
    return (one[:, None] * one[None, :])[None, None]


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("kernel", [4, 5])
def test_every_level_answers_where_the_blob_is(scale, stride, padding, kernel):
    """The centre of mass of the answer, in image coordinates, is the blob's centre at every scale."""
    centre, size = 30.3, 64
    weight = torch.ones(1, 1, kernel, kernel, dtype=torch.float64)
    y = si_conv2d(blob(size, centre, 5.0), weight, None, stride, padding, scales=(scale,))[0, 0]
    first = (kernel - 1) / 2 - padding + 0.5  # receptive-field centre of output 0
    at = first + stride * torch.arange(y.shape[0], dtype=torch.float64)
    assert float((y.sum(1) * at).sum() / y.sum()) == pytest.approx(centre, abs=0.02)
    assert float((y.sum(0) * at).sum() / y.sum()) == pytest.approx(centre, abs=0.02)


def test_the_winner_at_a_blob_follows_its_size():
    """A filter matched to a blob of one size wins at the scale that brings other sizes to it."""
    at = torch.arange(9, dtype=torch.float64) - 4
    ring = torch.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / 8)
    weight = (ring - ring.mean())[None, None]
    scales = (0.5, 0.75, 1.0, 1.5, 2.0)
    winners = []
    for radius in (4.0, 2.0, 1.0):
        _, winner = si_conv2d(
            blob(65, 32.5, radius), weight, None, 1, 4, scales=scales, return_winner=True
        )
        winners.append(scales[int(winner[0, 0, 32, 32])])
    assert winners == [0.5, 1.0, 2.0]


def test_a_level_smaller_than_the_kernel_is_left_out_with_a_warning():
    x, weight = torch.randn(1, 1, 6, 9), torch.randn(2, 1, 5, 5)
    with pytest.warns(
        UserWarning, match=r"5×5 kernel is larger .* \(6×9 at scale 1\) at scale 0.5; left out"
    ):
        out, winner = si_conv2d(x, weight, scales=(0.5, 1, 2), return_winner=True)
    assert torch.equal(out, si_conv2d(x, weight, scales=(1, 2)))
    assert set(winner.unique().tolist()) == {1, 2}


@pytest.mark.parametrize("scales", [(0.5,), (2.0,), (0.5, 2.0)])
def test_a_kernel_larger_than_the_input_is_refused(scales):
    with pytest.raises(
        InputError, match=r"kernel is larger than the padded input \(3×9 at scale 1\)"
    ):
        si_conv2d(torch.randn(1, 1, 3, 9), torch.randn(1, 1, 5, 5), scales=scales)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (1, 3, 8, 8), (3, 8, 8)])
def test_empty_single_and_unbatched_inputs(shape):
    layer = SIConv2d(3, 4, 3, padding=1)
    x = torch.randn(shape, requires_grad=True)
    y = layer(x)
    assert y.shape == (*shape[:-3], 4, 8, 8)
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_depthwise_and_pointwise():
    x = torch.randn(2, 4, 7, 6)
    depthwise = SIConv2d(4, 4, 3, padding=1, groups=4)
    alone = torch.cat(
        [
            si_conv2d(
                x[:, c : c + 1], depthwise.weight[c : c + 1], depthwise.bias[c : c + 1], padding=1
            )
            for c in range(4)
        ],
        dim=1,
    )
    torch.testing.assert_close(depthwise(x), alone)
    assert SIConv2d(4, 5, 1)(x).shape == (2, 5, 7, 6)


def test_channels_last_and_autocast():
    layer = SIConv2d(8, 16, 3, padding=1)
    x = torch.randn(2, 8, 9, 7)
    torch.testing.assert_close(
        layer(x.contiguous(memory_format=torch.channels_last)), layer(x), atol=1e-5, rtol=1e-5
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), layer(x), atol=0.05, rtol=0.05)


def test_meta_and_factory_arguments():
    layer = SIConv2d(3, 4, 3, device="meta", dtype=torch.float64)
    y = layer(torch.empty(2, 3, 8, 8, device="meta", dtype=torch.float64))
    assert (y.shape, y.device.type, y.dtype) == ((2, 4, 6, 6), "meta", torch.float64)


def test_repr_and_refusals():
    assert repr(SIConv2d(3, 4, 3, scales=(1, 2))) == (
        "SIConv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), scales=(1.0, 2.0), antialias=True, "
        "reduce='max')"
    )
    with pytest.raises(InputError, match="reduce must be one of max, mean, logsumexp, got 'sum'"):
        SIConv2d(3, 4, 3, reduce="sum")
    with pytest.raises(InputError, match="no scale set is named"):
        SIConv2d(3, 4, 3, scales="seven")
    x, weight = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 5, 5)
    with pytest.raises(InputError, match="padding_mode must be one of zeros"):
        si_conv2d(x, weight, padding=2, padding_mode="mirror")
    with pytest.raises(InputError, match=r"'reflect' cannot pad a level of \(2, 2\)"):
        si_conv2d(x, weight, padding=2, padding_mode="reflect", scales=(0.5,))
    with pytest.raises(InputError, match="needs how='max'"):
        si_conv2d(x, weight, padding=2, reduce="mean", return_winner=True)


def normed(factors):
    norm = nn.BatchNorm2d(6).eval()
    norm.weight.data = torch.tensor(factors)
    norm.bias.data.normal_()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


@pytest.mark.parametrize("reduce", ["max", "mean", "logsumexp"])
@pytest.mark.parametrize("factors", [[0.5, 1, 2, 3, 0.1, 1], [0.5, -1, 2, 3, 0.1, 1]])
def test_a_batch_norm_is_fused_rightly_or_not_at_all(reduce, factors):
    torch.manual_seed(0)
    conv, norm = SIConv2d(3, 6, 3, padding=1, reduce=reduce).eval(), normed(factors)
    before = conv.weight.clone()
    x = torch.randn(2, 3, 12, 12)
    if reduce == "mean" or (reduce == "max" and min(factors) > 0):
        fused = fuse_conv_bn_eval(conv, norm)
        torch.testing.assert_close(fused(x), norm(conv(x)), atol=1e-5, rtol=1e-4)
    else:
        with pytest.raises(InputError, match="leave the batch norm after it unfused"):
            fuse_conv_bn_eval(conv, norm)
    assert torch.equal(conv.weight, before)
    conv.weight = nn.Parameter(torch.randn_like(conv.weight))  # other filters are taken
    conv.weight = nn.Parameter(conv.weight.detach().clone())
