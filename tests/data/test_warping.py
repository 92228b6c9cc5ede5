from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nearfar.data import DataSpec, ScaleDataModule
from nearfar.data.augmentation import crop, draw_crop_flip, draw_scales, draw_warps, warp
from nearfar.errors import InputError

TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]])  # x to the right goes to y down: clockwise


def test_a_quarter_turn_is_rot90_and_a_half_turn_two_flips():
    square, wide = torch.rand(2, 3, 6, 6), torch.rand(2, 1, 5, 8)
    turned = warp(square, TURN.expand(2, 2, 2))
    torch.testing.assert_close(turned, square.rot90(-1, (2, 3)), atol=2e-5, rtol=0)
    torch.testing.assert_close(
        warp(wide, -torch.eye(2).expand(2, 2, 2)), wide.flip(2, 3), atol=2e-5, rtol=0
    )


def test_a_slant_of_45_degrees_shifts_each_row_by_its_distance_from_the_middle():
    # An odd number of rows lies at whole distances; the image is wider than high, so that mixing up
    # the axes, or half widths and half heights, would show.
    image = torch.rand(1, 1, 5, 9)
    slanted = warp(image, torch.tensor([[[1.0, 1.0], [0.0, 1.0]]]))
    for row in range(5):
        for column in range(9):
            source = min(max(column - (row - 2), 0), 8)
            assert slanted[0, 0, row, column] == pytest.approx(
                float(image[0, 0, row, source]), abs=1e-4
            )


def test_stretching_makes_wider_and_less_high_and_each_image_has_its_own_map():
    image = torch.zeros(2, 1, 40, 40)
    image[:, :, 14:26, 14:26] = 1
    maps = torch.stack([torch.diag(torch.tensor([2.0, 0.5])), torch.eye(2)])
    wide, same = warp(image, maps)
    assert torch.equal((wide[0] > 0.5).nonzero().amin(0), torch.tensor([17, 8]))
    assert torch.equal((wide[0] > 0.5).nonzero().amax(0), torch.tensor([22, 31]))
    torch.testing.assert_close(same, image[1], atol=1e-5, rtol=0)


@given(
    rotate=st.floats(0, 180),
    shear=st.floats(0, 60),
    stretch=st.floats(1, 4),
    seed=st.integers(0, 9),
)
def test_no_draw_changes_areas_or_leaves_its_bounds(rotate, shear, stretch, seed):
    drawn = draw_warps(50, rotate, shear, stretch, seed, epoch=1)
    torch.testing.assert_close(torch.linalg.det(drawn), torch.ones(50, dtype=torch.float64))
    # M = R S Q: the first column is R's, q times as long; the second leans from its normal by φ.
    q = drawn[:, :, 0].norm(dim=1)
    assert bool((q <= stretch * (1 + 1e-9)).all() and (q >= (1 - 1e-9) / stretch).all())
    turn = torch.atan2(drawn[:, 1, 0], drawn[:, 0, 0])
    assert float(turn.abs().max()) <= math.radians(rotate) + 1e-9
    slant = (drawn[:, :, 0] * drawn[:, :, 1]).sum(1)
    assert float(slant.abs().max()) <= math.tan(math.radians(shear)) + 1e-6


def test_draws_fill_their_bounds_and_belong_to_seed_and_epoch():
    drawn = draw_warps(20000, 30, 0, 1, seed=0, epoch=0)
    turn = torch.rad2deg(torch.atan2(drawn[:, 1, 0], drawn[:, 0, 0]))
    assert torch.histc(turn, 6, -30, 30).sub(20000 / 6).abs().max() < 250
    slant = torch.rad2deg(draw_warps(20000, 0, 30, 1, seed=0, epoch=0)[:, 0, 1].atan())
    assert torch.histc(slant, 6, -30, 30).sub(20000 / 6).abs().max() < 250
    q = draw_warps(20000, 0, 0, 1.5, seed=0, epoch=0)[:, 0, 0].log() / math.log(1.5)
    assert torch.histc(q, 6, -1, 1).sub(20000 / 6).abs().max() < 250
    draws = [draw_warps(9, 30, 0, 1, s, e) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert not any(torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
    assert torch.equal(draws[1], draw_warps(9, 30, 0, 1, 0, 1))


def test_stretched_first_then_slanted_then_turned():
    turns, slants, stretches = (
        draw_warps(40, *largest, seed=3, epoch=2)
        for largest in ((12, 0, 1), (0, 8.5, 1), (0, 0, 1.1))
    )
    together = draw_warps(40, 12, 8.5, 1.1, seed=3, epoch=2)
    torch.testing.assert_close(together, turns @ slants @ stretches)


def test_a_warp_comes_after_the_scale_and_before_the_crop():
    spec = DataSpec(
        train=40, validation=20, test=20, rotate=30, random_scale=(0.5, 1), augment="views", pad=3
    )
    data = ScaleDataModule(spec, batch_size=40, seed=1)
    loader = data.train_dataloader()
    (indices,) = loader.sampler
    images, _ = loader.dataset[indices]
    at = torch.tensor(indices[1])
    stored = data._images[data.indices["train"][at]]
    wider = dataclasses.replace(spec.protocol, canvas=spec.protocol.canvas + 6)
    turned = warp(
        wider.render_each(stored, draw_scales(40, 0.5, 1, 1, 0)[at]),
        draw_warps(40, 30, 0, 1, 1, 0)[at],
    )
    starts, flips = (part[at] for part in draw_crop_flip(40, 3, 1, 0, places=6))
    side = spec.protocol.canvas
    torch.testing.assert_close(images, crop(turned, starts, flips, (side, side)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_places_are_as_exact_in_half_precision(dtype):
    images, maps = torch.rand(2, 1, 100, 100).to(dtype), draw_warps(2, 12, 8.5, 1.1, 0, 0)
    expected = warp(images.float(), maps)
    assert warp(images, maps).dtype == dtype
    torch.testing.assert_close(warp(images, maps).float(), expected, atol=4e-3, rtol=0)


def test_training_images_are_warped_anew_each_epoch_and_others_never():
    spec = DataSpec(train=60, validation=20, test=20, rotate=20, shear=10, stretch=1.2)
    data = ScaleDataModule(spec, batch_size=16, seed=2)
    loader = data.train_dataloader()
    plain = data.images("train", 1.0)
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        expected = warp(plain, draw_warps(60, 20, 10, 1.2, 2, epoch))
        for indices in loader.sampler:
            images, _ = loader.dataset[indices]
            torch.testing.assert_close(images, expected[indices[1]], atol=1e-6, rtol=0)
    images = torch.cat([images for images, _ in data.val_dataloader()])
    assert torch.equal(images, data.images("validation", 1.0))


def test_warps_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"stretch a factor from 1 to 4.*stretch=0\.5"):
        DataSpec(stretch=0.5)
    with pytest.raises(InputError, match="rotate=-3"):
        DataSpec(rotate=-3)
    with pytest.raises(InputError, match="shear=90"):
        DataSpec(shear=90)
    with pytest.raises(InputError, match=r"each of the 2 images.*\(1, 2, 2\)"):
        warp(torch.rand(2, 1, 4, 4), torch.eye(2)[None])
    with pytest.raises(InputError, match="matrix 1 has no inverse"):
        warp(torch.rand(2, 1, 4, 4), torch.stack([torch.eye(2), torch.ones(2, 2)]))
    with pytest.raises(InputError, match=r"floating point, got torch\.uint8 of shape \(1, 4, 4\)"):
        warp(torch.zeros(1, 4, 4, dtype=torch.uint8), torch.eye(2)[None])
    with pytest.raises(InputError, match="stretch=0"):
        draw_warps(1, 0, 0, 0, 0, 0)
    for wrong in ("12", None, True, math.nan):
        with pytest.raises(InputError, match=f"rotate={wrong!r}"):
            DataSpec(rotate=wrong)


def test_no_image_stays_no_image():
    assert warp(torch.rand(0, 1, 4, 4), torch.rand(0, 2, 2)).shape == (0, 1, 4, 4)
