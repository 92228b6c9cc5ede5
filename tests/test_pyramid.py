from __future__ import annotations

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nearfar import pyramid
from nearfar.errors import InputError
from nearfar.grid import Axis, Window, base_grid
from nearfar.pyramid import Pyramid, collapse, expand, resample

sizes = st.integers(1, 12)
some_scales = st.lists(
    st.sampled_from([0.25, 0.4, 0.5, 0.75, 1.0, 1.3, 1.5, 2.0, 3.0]), min_size=1, max_size=4
)


@given(height=sizes, width=sizes, scales=some_scales, antialias=st.booleans())
def test_expand_is_the_naive_resize(height, width, scales, antialias):
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    smallest = min(naive.level_size(n, s) for n in (height, width) for s in scales)
    if smallest < 1:
        with pytest.raises(InputError, match="has no sample left; leave that scale out"):
            expand(x, scales, antialias=antialias)
        return
    actual = expand(x, scales, antialias=antialias)
    for level, scale in zip(actual.levels, scales, strict=True):
        h, w = naive.level_size(height, scale), naive.level_size(width, scale)
        expected = [[naive.resize(c.numpy(), h, w, antialias) for c in image] for image in x]
        torch.testing.assert_close(level, torch.tensor(np.array(expected)))


def test_a_level_of_the_same_size_is_the_input_itself():
    x = torch.randn(1, 2, 5, 7)
    assert expand(x, (0.5, 1, 1.04)).levels[1] is x
    assert expand(x, (1.04,)).levels[0] is x


@given(
    source=st.tuples(sizes, st.floats(-3, 3), st.floats(0.3, 3)),
    target=st.tuples(sizes, st.floats(-3, 3), st.floats(0.3, 3)),
    antialias=st.booleans(),
)
def test_resample_reads_between_any_two_grids(source, target, antialias):
    a, b = Axis(*source, tiles=False), Axis(*target, tiles=False)
    x = torch.randn(a.size, a.size, dtype=torch.float64)
    at = [(b.position(i) - a.start) / a.step for i in range(b.size)]
    width = max(1.0, b.step / a.step) if antialias else 1.0
    expected = naive.read_map(x.numpy(), at, at, width, width)
    actual = resample(x, (a, a), (b, b), antialias=antialias)
    torch.testing.assert_close(actual, torch.tensor(expected))


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("old", "new"), [((9, 7), (4, 11)), ((8, 8), (3, 3)), ((5, 6), (10, 9))])
def test_the_matrix_path_agrees_with_torch_s_interpolate(old, new, antialias):
    x = torch.randn(2, 3, *old, dtype=torch.float64)
    source = tuple(Axis.tiling(n, 1.0)._replace(tiles=False) for n in old)
    target = tuple(Axis.tiling(n, 1.0) for n in new)
    expected = nn.functional.interpolate(x, new, mode="bilinear", antialias=antialias)
    torch.testing.assert_close(resample(x, source, target, antialias=antialias), expected)


def test_bicubic_is_torch_s_antialiased_bicubic():
    x = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    source = (Axis.tiling(9, 9)._replace(tiles=False),) * 2
    target = (Axis.tiling(4, 9),) * 2
    actual = resample(x, source, target, antialias=True, kernel="bicubic")
    expected = nn.functional.interpolate(x, (4, 4), mode="bicubic", antialias=True)
    torch.testing.assert_close(actual, expected)


def test_outside_zeros_lays_an_image_on_an_empty_canvas():
    image = torch.ones(1, 2, 2)
    inner = Axis(2, 1.5, 1.0, tiles=False)
    canvas = Axis.tiling(4, 4)
    canvas_map = resample(image, (inner, inner), (canvas, canvas), outside="zeros")
    expected = torch.zeros(1, 4, 4)
    expected[:, 1:3, 1:3] = 1
    torch.testing.assert_close(canvas_map, expected)


def test_enlarged_content_keeps_its_brightness_inside():
    image = torch.ones(1, 8, 8)
    inner = Axis(8, 2 + 0.75, 1.5, tiles=False)
    canvas_map = resample(image, (inner, inner), base_grid(16, 16), antialias=True, outside="zeros")
    torch.testing.assert_close(canvas_map[:, 4:12, 4:12], torch.ones(1, 8, 8))
    assert canvas_map[:, 0].abs().max() == 0


def test_resample_refuses_a_grid_of_another_size():
    with pytest.raises(InputError, match=r"map of \(3, 4\) for a source grid of \(4, 4\) samples"):
        resample(torch.zeros(3, 4), base_grid(4, 4), base_grid(2, 2))


def test_map_shares_one_function_and_places_its_outputs():
    layer = nn.Conv2d(3, 2, 3, stride=2, padding=1)
    p = expand(torch.randn(1, 3, 9, 8), (0.5, 1))
    actual = pyramid.map(layer, p, window=Window.of(layer))
    for level, image in zip(actual.levels, p.levels, strict=True):
        torch.testing.assert_close(level, layer(image))
    assert actual.base == (Axis(5, 0.5, 2.0, False), Axis(4, 0.5, 2.0, False))


def test_map_keeps_the_grids_under_a_pointwise_function():
    layer = nn.Conv2d(3, 2, 3)
    moved = pyramid.map(layer, expand(torch.randn(1, 3, 9, 8), (1, 2)), window=Window.of(layer))
    after = pyramid.map(torch.relu, moved)
    assert (after.base, after.grids) == (moved.base, moved.grids)


def test_map_without_a_window_lets_outputs_share_the_stretch():
    pooled = pyramid.map(nn.MaxPool2d(4), expand(torch.randn(1, 1, 32, 16), (0.5, 1, 2)))
    assert pooled.base == (Axis.tiling(8, 32), Axis.tiling(4, 16))
    assert collapse(pooled).shape == (1, 1, 8, 4)


@pytest.mark.parametrize("how", ["max", "mean", "sum", "logsumexp", "concat"])
def test_collapse_combines_levels_on_the_base_grid(how):
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    p = expand(x, (0.5, 1, 2))
    back = torch.stack(
        [nn.functional.interpolate(level, (6, 5), mode="bilinear") for level in p.levels]
    )
    expected = {
        "max": back.amax(0),
        "mean": back.mean(0),
        "sum": back.sum(0),
        "logsumexp": back.logsumexp(0),
        "concat": torch.cat(list(back), dim=1),
    }[how]
    torch.testing.assert_close(collapse(p, how), expected)


def test_winners_are_indices_and_ties_go_to_the_first_level():
    grid = base_grid(1, 3)
    levels = (torch.tensor([[[[1.0, 2.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0, 3.0]]]]))
    both = tuple(level.requires_grad_() for level in levels)
    best, winner = collapse(Pyramid(both, (1.0, 1.0), (grid, grid), grid), return_winner=True)
    assert winner.tolist() == [[[[0, 0, 1]]]]
    assert winner.dtype == torch.uint8
    best.sum().backward()
    assert [level.grad.flatten().tolist() for level in both] == [[1, 1, 0], [0, 0, 1]]


def test_not_a_number_is_not_lost_in_a_maximum():
    grid = base_grid(1, 2)
    for order in (1, -1):
        levels = [torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[torch.nan, 1.0]]]])][::order]
        best = collapse(Pyramid(tuple(levels), (1.0, 1.0), (grid, grid), grid))
        assert best.isnan().flatten().tolist() == [True, False]


def test_answers_without_place_collapse_as_they_are():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    logits = pyramid.map(net, expand(torch.randn(2, 3, 8, 8), (0.5, 1)))
    assert (logits.base, logits.grids) == (None, (None, None))
    torch.testing.assert_close(collapse(logits, "mean"), torch.stack(logits.levels).mean(0))
    assert collapse(logits, "concat").shape == (2, 6)


@pytest.mark.parametrize("antialias", [False, True])
def test_gradients(antialias):
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)

    def through(x, how):
        return collapse(expand(x, (0.5, 1, 1.7), antialias=antialias), how, antialias=antialias)

    for how in ("max", "mean", "logsumexp", "concat"):
        assert torch.autograd.gradcheck(through, (x, how))
    assert torch.autograd.gradgradcheck(through, (x, "logsumexp"))


def test_channels_last_stays_and_changes_nothing():
    x = torch.randn(2, 8, 9, 7)
    last = x.contiguous(memory_format=torch.channels_last)
    grid = (Axis(5, 1.0, 1.5, False), Axis(4, 1.0, 1.5, False))
    for actual, expected in (
        (collapse(expand(last, (0.5, 1, 2))), collapse(expand(x, (0.5, 1, 2)))),
        (resample(last, base_grid(9, 7), grid), resample(x, base_grid(9, 7), grid)),
    ):
        assert actual.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_are_kept(dtype):
    x = torch.randn(1, 2, 8, 8).to(dtype)
    actual = collapse(expand(x, (0.5, 1, 2)))
    assert actual.dtype == dtype
    expected = collapse(expand(x.double(), (0.5, 1, 2)))
    torch.testing.assert_close(
        actual.double(), expected, atol=4 * torch.finfo(dtype).eps, rtol=0.02
    )


def test_autocast():
    layer = nn.Conv2d(3, 4, 3, padding=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        p = pyramid.map(
            layer, expand(torch.randn(1, 3, 9, 9), (0.5, 1, 2)), window=Window.of(layer)
        )
        assert collapse(p).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(3, 6, 5), (0, 3, 6, 5)])
def test_single_images_and_empty_batches(shape):
    assert collapse(expand(torch.randn(shape), (0.5, 1, 2))).shape == shape


def test_repr_shows_what_is_inside():
    assert repr(expand(torch.zeros(1, 2, 4, 6), (0.5, 1))) == "Pyramid(0.5: 1×2×2×3, 1: 1×2×4×6)"


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(4, 4), r"floating-point map .* got shape \(4, 4\)"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), r"of torch.uint8; .* convert with .float\(\)"),
    ],
)
def test_expand_refuses_what_is_no_map(x, message):
    with pytest.raises(InputError, match=message):
        expand(x, (1,))


def test_refusals_of_collapse():
    p = expand(torch.zeros(1, 1, 4, 4), (1, 2))
    with pytest.raises(InputError, match="how must be one of max, mean, .* got 'median'"):
        collapse(p, "median")
    with pytest.raises(InputError, match="return_winner needs how='max'"):
        collapse(p, "mean", return_winner=True)


def test_refusals_of_pyramid():
    with pytest.raises(InputError, match="got 0 levels, 0 scales, 0 grids"):
        Pyramid((), (), (), None)
    with pytest.raises(InputError, match="same number of dimensions"):
        Pyramid((torch.zeros(1, 1), torch.zeros(1, 1, 1)), (1.0, 1.0), (None, None), None)
    logits = Pyramid((torch.zeros(1, 2),), (1.0,), (None,), None)
    with pytest.raises(InputError, match="no place in the image"):
        pyramid.map(lambda y: y[..., None], logits)


@pytest.mark.parametrize(
    ("size", "scale"), [((16, 4), 0.2), ((16, 1), 0.5), ((9, 2), 0.5), ((3, 16), 0.2)]
)
def test_levels_of_one_row_or_column_are_right(size, scale):
    """torch's antialiased interpolation repeats the first row where one column comes out."""
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    level = expand(x, (scale,)).levels[0]
    assert 1 in level.shape[-2:]
    expected = naive.resize(x[0, 1].numpy(), *level.shape[-2:], True)
    torch.testing.assert_close(level[0, 1], torch.tensor(expected))
