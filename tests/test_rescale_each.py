from __future__ import annotations

import pytest
import torch

from nearfar.data import ScaleProtocol
from nearfar.errors import InputError
from nearfar.grid import Axis
from nearfar.pyramid import resample, rescale_each
from nearfar.resampling import reading_matrices, reading_matrix

FACTORS = (0.17, 0.5, 0.93, 1.0, 1.31, 2.0, 7.3)


def about_the_middle(size, factor, target):
    return Axis(size, target / 2 - factor * (size - 1) / 2, factor, tiles=False)


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
@pytest.mark.parametrize("outside", ["zeros", "border"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("shape", [(8, 8, 8, 8), (7, 12, 9, 5)])
def test_a_batch_is_rescaled_as_its_maps_one_by_one(kernel, outside, antialias, shape):
    height, width, *size = shape
    x = torch.rand(len(FACTORS), 3, height, width, dtype=torch.float64)
    options = {"antialias": antialias, "kernel": kernel, "outside": outside}
    moved = rescale_each(x, torch.tensor(FACTORS), tuple(size), **options)
    targets = tuple(Axis.tiling(n, n) for n in size)
    for one, factor, actual in zip(x, torch.tensor(FACTORS).tolist(), moved, strict=True):
        placed = tuple(
            about_the_middle(n, factor, m) for n, m in zip((height, width), size, strict=True)
        )
        expected = resample(one, placed, targets, **options)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_and_layouts(dtype):
    x = torch.rand(len(FACTORS), 2, 30, 21)
    exact = rescale_each(x.double(), torch.tensor(FACTORS))
    laid = x.to(dtype).contiguous(memory_format=torch.channels_last)
    actual = rescale_each(laid, torch.tensor(FACTORS))
    assert actual.dtype == dtype
    assert actual.is_contiguous(memory_format=torch.channels_last)
    near = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(actual.double(), exact, rtol=0, atol=near)


def test_matrices_are_those_of_single_axes():
    actual = reading_matrices(9, torch.tensor(FACTORS, dtype=torch.float64), 14, True)
    for factor, matrix in zip(FACTORS, actual, strict=True):
        expected = reading_matrix(
            about_the_middle(9, factor, 14), Axis.tiling(14, 14), True, "bicubic", "zeros"
        )
        torch.testing.assert_close(matrix, expected, rtol=0, atol=1e-12)


def test_gradients_by_maps_and_by_factors():
    x = torch.rand(3, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    factors = torch.tensor([0.63, 1.17, 1.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, f: rescale_each(x, f, (5, 6)), (x, factors))


def test_no_map_and_no_change():
    assert rescale_each(torch.rand(0, 2, 4, 4), torch.ones(0), (3, 5)).shape == (0, 2, 3, 5)
    x = torch.rand(2, 3, 7, 8)
    torch.testing.assert_close(rescale_each(x, torch.ones(2)), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 20), (9, 31)])
@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
def test_a_protocol_shows_each_image_at_its_own_scale(shape, kernel):
    protocol = ScaleProtocol(canvas=24, content=15, interpolation=kernel)
    images = torch.randint(256, (len(FACTORS), 3, *shape), dtype=torch.uint8)
    rendered = protocol.render_each(images, torch.tensor(FACTORS))
    for image, scale, actual in zip(images, FACTORS, rendered, strict=True):
        expected = protocol.render(image[None], scale)[0]
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rescale_each(torch.rand(3, 4, 4), torch.ones(3)), "needs floating-point maps"),
        (lambda: rescale_each(torch.rand(2, 1, 4, 4), torch.ones(3)), r"one factor a map.*\(3,\)"),
        (lambda: rescale_each(torch.ones(1, 1, 2, 2).byte(), torch.ones(1)), "torch.uint8"),
        (
            lambda: rescale_each(torch.rand(2, 1, 4, 4), torch.tensor([1.0, 0.0])),
            r"every factor must be positive and finite, got \[1.0, 0.0\]",
        ),
        (
            lambda: ScaleProtocol().render_each(torch.rand(1, 1, 4, 4), torch.tensor([0.01])),
            "at scale 0.01 the content of 12 pixels would cover 0.12; it must cover at least 1 pixel",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()
