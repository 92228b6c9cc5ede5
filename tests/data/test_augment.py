from __future__ import annotations

import pytest
import torch

from nearfar.data import DataSpec, Normalisation, Normalised, ScaleData, ScaleProtocol
from nearfar.data.augment import crop_flip, draw_crop_flip
from nearfar.errors import InputError

SPEC = DataSpec(train=60, validation=20, test=20, augment="crop_flip", pad=3)


def naive_crop_flip(image, top, left, flip, pad):
    """One image, pixel by pixel, from the definition."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                row = i + top - pad
                column = (width - 1 - j if flip else j) + left - pad
                if 0 <= row < height and 0 <= column < width:
                    result[c, i, j] = image[c, row, column]
    return result


def test_a_batch_is_cropped_and_flipped_as_a_loop_over_its_images_would():
    images = torch.rand(12, 2, 5, 6)
    starts, flips = draw_crop_flip(12, 2, seed=1, epoch=3)
    assert 0 < flips.sum() < 12
    moved = crop_flip(images, starts, flips, 2)
    for n in range(12):
        top, left = starts[n].tolist()
        assert torch.equal(moved[n], naive_crop_flip(images[n], top, left, bool(flips[n]), 2))


def test_shifts_reach_every_place_evenly_and_differ_by_seed_and_epoch():
    starts, flips = draw_crop_flip(18000, 4, seed=0, epoch=0)
    for axis in (0, 1):
        count = starts[:, axis].bincount(minlength=9)
        assert len(count) == 9
        assert (count - 2000).abs().max() < 250
    assert abs(float(flips.float().mean()) - 0.5) < 0.02
    draws = [draw_crop_flip(50, 4, s, e)[0] for s, e in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert not any(torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
    assert torch.equal(draws[1], draw_crop_flip(50, 4, 0, 1)[0])


@pytest.mark.parametrize("hold", [0, 2**28])
def test_training_images_move_anew_each_epoch_and_others_never(monkeypatch, hold):
    monkeypatch.setattr("nearfar.data.shown.HOLD", hold)
    data = ScaleData(SPEC, batch_size=16, seed=2)
    loader = data.train_dataloader()
    plain = data.images("train", 1.0)
    seen = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        starts, flips = draw_crop_flip(60, 3, 2, epoch)
        expected = crop_flip(plain, starts, flips, 3)
        batches = [loader.dataset[wanted] for wanted in loader.sampler]
        shown = torch.cat([images for images, _ in batches])
        # Whatever the order and the batches: each image has the shift that is its own.
        by_sum = shown.double().flatten(1).cumsum(1).sum(1).sort()
        wanted = expected.double().flatten(1).cumsum(1).sum(1).sort()
        assert torch.equal(shown[by_sum.indices], expected[wanted.indices])
        seen.append(expected)
    assert not torch.equal(*seen)
    validation = torch.cat([images for images, _ in data.val_dataloader()])
    assert torch.equal(validation, data.images("validation", 1.0))


def test_normalisation_is_of_the_training_images_as_shown():
    spec = DataSpec(
        protocol=ScaleProtocol(canvas=10, content=8), train=60, validation=20, test=20,
        normalize="standard", augment="crop_flip",
    )  # fmt: skip
    data = ScaleData(spec)
    found = data.normalisation()
    shown = data.images("train", 1.0).double()
    assert found.mean == pytest.approx([float(shown.mean())], rel=1e-6)
    assert found.std == pytest.approx([float(shown.std(correction=0))], rel=1e-6)
    assert ScaleData(SPEC).normalisation() is None


def test_each_channel_has_its_own_figures():
    images = torch.rand(50, 3, 4, 4) * torch.tensor([1.0, 0.5, 0.1]).view(3, 1, 1) + 0.2
    found = Normalisation.of(images.split(7))
    inner = torch.nn.Identity()
    normal = Normalised(inner, found)(images)
    assert normal.mean((0, 2, 3)).abs().max() < 1e-5
    assert (normal.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    assert Normalised(torch.nn.Linear(1, 1), found).state_dict().keys() == {
        "network.weight",
        "network.bias",
    }
    assert "mean=(0." in repr(Normalised(inner, found))


def test_images_that_are_all_alike_are_refused():
    with pytest.raises(InputError, match="a deviation of 0 means that all images are alike"):
        Normalisation.of([torch.full((2, 1, 3, 3), 0.3)])
