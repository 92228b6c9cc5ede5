from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nearfar.errors import InputError
from nearfar.grid import Axis, Window, base_grid, level_size


def test_pixel_centres_lie_halfway():
    rows, columns = base_grid(3, 5)
    assert [rows.position(i) for i in range(3)] == [0.5, 1.5, 2.5]
    assert columns == Axis(5, 0.5, 1.0, True)


def test_a_level_covers_the_same_stretch():
    axis = Axis.tiling(4, 8)
    assert [axis.position(i) for i in range(4)] == [1.0, 3.0, 5.0, 7.0]


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [(15, 0.7, 11), (28, 0.5, 14), (7, 0.5, 4), (5, 0.1, 1), (4, 0.1, 0)],
)
def test_level_sizes_round_halves_upwards(size, scale, expected):
    assert level_size(size, scale) == expected


@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    padding=st.integers(0, 4),
    dilation=st.integers(1, 3),
)
def test_output_sizes_are_torch_s(size, kernel, stride, padding, dilation):
    window = Window.make(kernel, stride, padding, dilation)
    expected = window.output_size(size, 0)
    if expected == 0:
        assert size + 2 * padding < dilation * (kernel - 1) + 1
        return
    layer = nn.Conv2d(1, 1, (kernel, 1), (stride, 1), (padding, 0), (dilation, 1))
    assert layer(torch.zeros(1, 1, size, 1)).shape[2] == expected


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
def test_same_padding_is_torch_s(kernel, dilation):
    layer = nn.Conv2d(1, 1, kernel, padding="same", dilation=dilation, bias=False)
    window = Window.of(layer)
    (top, bottom), (left, right) = window.padding
    by_hand = nn.functional.conv2d(
        nn.functional.pad(x := torch.randn(1, 1, 9, 8), (left, right, top, bottom)),
        layer.weight,
        dilation=dilation,
    )
    torch.testing.assert_close(layer(x), by_hand)


@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
    output=st.integers(0, 3),
)
def test_outputs_stand_at_their_receptive_fields_centres(kernel, stride, padding, dilation, output):
    """The inputs that an output depends on, found by differentiation, are centred on its position."""
    window = Window.make((kernel, 1), (stride, 1), (padding, 0), (dilation, 1))
    x = torch.zeros(1, 1, 24, 1, requires_grad=True)
    y = nn.functional.conv2d(
        x, torch.ones(1, 1, kernel, 1), None, (stride, 1), (padding, 0), (dilation, 1)
    )
    (gradient,) = torch.autograd.grad(y[0, 0, output + 4, 0], x)
    touched = gradient[0, 0, :, 0].nonzero().flatten()
    if len(touched) < kernel:
        return  # partly in the padding
    rows, _ = window.apply(base_grid(24, 1))
    assert rows.position(output + 4) == touched.double().mean().item() + 0.5


def test_only_same_sized_odd_windows_keep_a_tiling():
    grid = base_grid(8, 8)
    assert Window.make(3, 1, 1).apply(grid) == grid
    for window in (Window.make(3, 1, 0), Window.make(2, 1, "same"), Window.make(3, 2, 1)):
        assert not window.apply(grid)[0].tiles


def test_resized_keeps_the_stretch():
    axis = Axis(6, 1.5, 1.0, False)  # covers 1 to 7
    assert axis.resized(3) == Axis(3, 2.0, 2.0, False)
    assert axis.resized(6) is axis


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": 0}, "kernel_size must be a whole number >= 1 or a pair of them, got 0"),
        ({"kernel": 3, "stride": (1, 2, 3)}, r"stride must be .* got \(1, 2, 3\)"),
        ({"kernel": 3, "padding": -1}, "padding must be a whole number >= 0"),
        (
            {"kernel": 3, "padding": "full"},
            "padding must be a number, 'same' or 'valid', got 'full'",
        ),
        ({"kernel": 3, "padding": "same", "stride": 2}, "padding='same' needs stride 1"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(InputError, match=message):
        Window.make(**arguments)
