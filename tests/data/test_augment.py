from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from pictures import folder
from PIL import Image

from nearfar.data import DataSpec, Normalisation, Normalised, ScaleDataModule, ScaleProtocol
from nearfar.data.augmentation import (
    Colours,
    TenCropped,
    crop_flip,
    draw_colours,
    draw_crop_flip,
    draw_scales,
    shift_colours,
    ten_crop,
)
from nearfar.errors import InputError
from nearfar.training import FitSpec, ModelSpec, train

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


@pytest.mark.parametrize("limit", [0, 2**28])
def test_training_images_move_anew_each_epoch_and_others_never(monkeypatch, limit):
    monkeypatch.setattr("nearfar.data.dataset.RENDERED_LIMIT", limit)
    data = ScaleDataModule(SPEC, batch_size=16, seed=2)
    loader = data.train_dataloader()
    assert (loader.dataset._rendered is None) == (limit == 0)
    plain = data.images("train", 1.0)
    epochs = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        starts, flips = draw_crop_flip(60, 3, 2, epoch)
        expected = crop_flip(plain, starts, flips, 3)
        batches = [loader.dataset[indices] for indices in loader.sampler]
        moved = torch.cat([images for images, _ in batches])
        # Whatever the order and the batches: each image has the shift that is its own.
        by_sum = moved.double().flatten(1).cumsum(1).sum(1).argsort()
        expected_by_sum = expected.double().flatten(1).cumsum(1).sum(1).argsort()
        assert torch.equal(moved[by_sum], expected[expected_by_sum])
        epochs.append(expected)
    assert not torch.equal(*epochs)
    validation = torch.cat([images for images, _ in data.val_dataloader()])
    assert torch.equal(validation, data.images("validation", 1.0))


def test_normalisation_is_of_the_training_images_as_shown():
    spec = DataSpec(
        protocol=ScaleProtocol(canvas=10, content=8), train=60, validation=20, test=20,
        normalize="standard", augment="crop_flip",
    )  # fmt: skip
    data = ScaleDataModule(spec)
    measured = data.normalisation()
    images = data.images("train", 1.0).double()
    assert measured.mean == pytest.approx([float(images.mean())], rel=1e-6)
    assert measured.std == pytest.approx([float(images.std(correction=0))], rel=1e-6)
    assert ScaleDataModule(SPEC).normalisation() is None


def test_each_channel_has_its_own_figures():
    images = torch.rand(50, 3, 4, 4) * torch.tensor([1.0, 0.5, 0.1]).view(3, 1, 1) + 0.2
    measured = Normalisation.of(images.split(7))
    inner = torch.nn.Identity()
    normal = Normalised(inner, measured)(images)
    assert normal.mean((0, 2, 3)).abs().max() < 1e-5
    assert (normal.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    assert Normalised(torch.nn.Linear(1, 1), measured).state_dict().keys() == {
        "network.weight",
        "network.bias",
    }
    assert "mean=(0." in repr(Normalised(inner, measured))


def test_images_that_are_all_alike_are_refused():
    with pytest.raises(InputError, match="a deviation of 0 means that all images are alike"):
        Normalisation.of([torch.full((2, 1, 3, 3), 0.3)])


# Views, colours, scales


def shown_in_order(data, epoch):
    """The training images of an epoch, as shown, in their own order."""
    return data.train_dataloader().dataset[epoch, list(range(len(data.labels("train"))))][0]


@pytest.mark.parametrize("scales", [(1.0,), (0.7, 1.4)])
def test_random_scales_are_each_image_s_own_each_epoch(scales):
    protocol = ScaleProtocol(train_scales=scales)
    spec = DataSpec(
        protocol=protocol, train=40, validation=20, test=20, random_scale=(0.5, 2), pad=2,
        augment="crop_flip",
    )  # fmt: skip
    data = ScaleDataModule(spec, seed=3)
    stored = data._images[data.indices["train"]]
    drawn = data._dataset("train").scales
    for epoch in (0, 1):
        factors = draw_scales(40, 0.5, 2, 3, epoch)
        starts, flips = draw_crop_flip(40, 2, 3, epoch)
        for i, image in enumerate(shown_in_order(data, epoch)):
            scale = float(drawn[i] * factors[i])
            plain = protocol.render(stored[i][None], scale)[0]
            top, left = starts[i].tolist()
            expected = naive_crop_flip(plain, top, left, bool(flips[i]), 2)
            torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)
    # Validation images have the sizes of training, the same in every epoch, and nothing else.
    loader = data.val_dataloader()
    stored = data._images[data.indices["validation"]]
    factors = data._dataset("validation").scales * draw_scales(20, 0.5, 2, 3, 0)
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        validation = torch.cat([images for images, _ in loader])
        assert torch.equal(validation, protocol.render_each(stored, factors))


def test_scales_are_log_uniform_and_differ_by_seed_and_epoch():
    drawn = draw_scales(20000, 0.25, 4, seed=0, epoch=0).log2()
    assert -2 <= drawn.min() < -1.99
    assert 1.99 < drawn.max() <= 2
    share = torch.histc(drawn.float(), 4, -2, 2) / 20000
    assert (share - 0.25).abs().max() < 0.015
    draws = [draw_scales(50, 0.5, 2, s, e) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert not any(torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_2048_views_of_an_image_of_256_pixels():
    """Shorter side to 256, one of 32 × 32 crops of 224, mirrored or not (here an eighth of it)."""
    protocol = ScaleProtocol(canvas=28, content=32, side="shorter")
    spec = DataSpec(protocol=protocol, train=60, validation=20, test=20, augment="views", pad=2)
    data = ScaleDataModule(spec, seed=1)
    whole = ScaleProtocol(canvas=32, content=32, side="shorter")
    framed = whole.render(data._images[data.indices["train"]], 1.0)
    starts, flips = draw_crop_flip(60, 2, 1, 5, places=4)
    assert starts.unique().tolist() == [0, 1, 2, 3]
    for i, image in enumerate(shown_in_order(data, 5)):
        top, left = starts[i].tolist()
        cut = framed[i, :, top : top + 28, left : left + 28]
        assert torch.equal(image, cut.flip(-1) if flips[i] else cut)
    # What is not augmented is the centre.
    torch.testing.assert_close(data.images("train", 1.0), framed[..., 2:30, 2:30])
    assert torch.equal(
        torch.cat(list(data.train_dataloader().dataset.in_order())), framed[..., 2:30, 2:30]
    )
    assert DataSpec(augment="views").explicit().pad == 16


def test_ten_crops_are_the_corners_the_centre_and_their_mirrors():
    images = torch.rand(2, 3, 9, 12)
    crops = ten_crop(images, 6)
    assert crops.shape == (2, 10, 3, 6, 6)
    for i, (top, left) in enumerate(((0, 0), (0, 6), (3, 0), (3, 6), (1, 3))):
        cut = images[:, :, top : top + 6, left : left + 6]
        assert torch.equal(crops[:, i], cut)
        assert torch.equal(crops[:, i + 5], cut.flip(-1))
    with pytest.raises(InputError, match="crops of 1 to 9 pixels out of images of 9×12, got 10"):
        ten_crop(images, 10)


def test_predictions_for_ten_crops_are_averaged():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 36, 4))
    images = 3 * torch.rand(2, 3, 9, 12)
    predictions = TenCropped(network, 6)(images)
    for image, prediction in zip(images, predictions, strict=True):
        each = [network(crop[None]).softmax(1) for crop in ten_crop(image[None], 6)[0]]
        torch.testing.assert_close(prediction.exp(), torch.cat(each).mean(0))
    assert "size=6" in repr(TenCropped(network, 6))


def test_a_margin_shows_what_lies_beyond_the_canvas():
    data = ScaleDataModule(DataSpec(protocol=ScaleProtocol(canvas=28, content=32)))
    larger = data.images("test", 1.0, first=3, margin=2)
    assert larger.shape == (3, 1, 32, 32)
    torch.testing.assert_close(larger[..., 2:30, 2:30], data.images("test", 1.0, first=3))
    assert larger[..., :2].max() > 0


def test_colours_are_moved_along_their_principal_components():
    mix = torch.tensor([[0.5, 0.2, 0], [0.3, 0.4, 0], [0, 0, 1]])
    images = torch.einsum("ij,bjhw->bihw", mix, torch.rand(30, 3, 5, 5))
    colours = Colours.of(images.split(7))
    pixels = images.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy()
    covariance = np.cov(pixels.T, bias=True)
    for variance, direction in zip(colours.variances, colours.directions, strict=True):
        np.testing.assert_allclose(
            covariance @ direction, variance * np.array(direction), atol=1e-9
        )
        assert np.linalg.norm(direction) == pytest.approx(1)
        assert sum(direction) > 0
    assert sorted(colours.variances, reverse=True) == list(colours.variances)
    amounts = draw_colours(30, 0.1, 4, 2)
    moved = shift_colours(images, amounts, colours)
    for image, alpha, there in zip(images, amounts, moved, strict=True):
        added = sum(
            float(a) * v * np.array(d)
            for a, v, d in zip(alpha, colours.variances, colours.directions, strict=True)
        )
        expected = image + torch.tensor(added, dtype=torch.float32)[:, None, None]
        torch.testing.assert_close(there, expected)
    many = draw_colours(30000, 0.1, 0, 0)
    assert many.mean(0).abs().max() < 0.003
    assert (many.std(0) - 0.1).abs().max() < 0.003
    assert not torch.equal(draw_colours(5, 0.1, 0, 1), many[:5])


def test_training_images_get_their_colours(tmp_path):
    stored = torch.randint(256, (40, 3, 6, 6), dtype=torch.uint8)
    for i, image in enumerate(stored):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    protocol = ScaleProtocol(canvas=6, content=6, test_scales=(1.0,))
    spec = DataSpec("folder", tmp_path, protocol, test=6, validation=6, colour=0.5)
    data = ScaleDataModule(spec, seed=7)
    plain = data.images("train", 1.0)
    colours = data.colours()
    assert colours == Colours.of([plain])
    expected = shift_colours(plain, draw_colours(len(plain), 0.5, 7, 3), colours)
    assert torch.equal(shown_in_order(data, 3), expected)
    assert not torch.equal(expected, plain)


def test_an_image_s_augmentation_does_not_depend_on_its_batch():
    spec = dataclasses.replace(SPEC, random_scale=(0.7, 1.5))
    one = ScaleDataModule(spec, seed=2).train_dataloader().dataset
    whole = one[4, list(range(60))][0]
    other = ScaleDataModule(spec, seed=2).train_dataloader().dataset
    for at in ([59, 3], [17], [0, 1, 2, 30]):
        assert torch.equal(other[1, at][0], one[1, at][0])
        torch.testing.assert_close(other[4, at][0], whole[at], rtol=0, atol=1e-6)


def test_a_run_with_all_of_it_is_recorded_and_taken_as_it_is(tmp_path):
    protocol = ScaleProtocol(canvas=12, content=14, test_scales=(1.0,), side="shorter")
    spec = DataSpec(
        "folder", folder(tmp_path / "images", 40), protocol, augment="views", pad=2,
        random_scale=(0.5, 2), colour=0.1,
    )  # fmt: skip
    first = train(ModelSpec("cnn_small"), spec, FitSpec(epochs=2), out=tmp_path / "run")
    colours = ScaleDataModule(spec).colours()
    assert tuple(first.record["colours"]["variances"]) == colours.variances
    assert first.recipe.data == spec.explicit()
    stamp = first.path.stat().st_mtime_ns
    train(ModelSpec("cnn_small"), spec, FitSpec(epochs=2), out=tmp_path / "run")
    assert first.path.stat().st_mtime_ns == stamp
    train(ModelSpec("cnn_small"), spec, FitSpec(epochs=2), out=tmp_path / "again")
    again = (tmp_path / "again" / first.path.name).read_bytes()
    assert again == first.path.read_bytes()
