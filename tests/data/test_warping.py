from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nearfar.data import DataSpec, ScaleData
from nearfar.data.augmentation import draw_warps, warp
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
    draws = [draw_warps(9, 30, 0, 1, s, e) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert not any(torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
    assert torch.equal(draws[1], draw_warps(9, 30, 0, 1, 0, 1))


def test_training_images_are_warped_anew_each_epoch_and_others_never():
    spec = DataSpec(train=60, validation=20, test=20, rotate=20, shear=10, stretch=1.2)
    data = ScaleData(spec, batch_size=16, seed=2)
    loader = data.train_dataloader()
    plain = data.images("train", 1.0)
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        expected = warp(plain, draw_warps(60, 20, 10, 1.2, 2, epoch))
        for wanted in loader.sampler:
            shown, _ = loader.dataset[wanted]
            torch.testing.assert_close(shown, expected[wanted[1]], atol=1e-6, rtol=0)
    shown = torch.cat([images for images, _ in data.val_dataloader()])
    assert torch.equal(shown, data.images("validation", 1.0))


def test_warps_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"stretch a factor from 1 to 4.*stretch=0\.5"):
        DataSpec(stretch=0.5)
    with pytest.raises(InputError, match="rotate=-3"):
        DataSpec(rotate=-3)
    with pytest.raises(InputError, match="shear=90"):
        DataSpec(shear=90)
    with pytest.raises(InputError, match=r"each of the 2 images.*\(1, 2, 2\)"):
        warp(torch.rand(2, 1, 4, 4), torch.eye(2)[None])
