import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nearfar.data import DataSpec, ScaleDataModule, ScaleProtocol
from nearfar.data.augmentation import box_sides, draw_exchanges
from nearfar.errors import InputError

SPEC = DataSpec(
    protocol=ScaleProtocol(train_band=(0.4, 1.6)), train=40, validation=20, test=20,
    exchange_sizes=(0.5, 2),
)  # fmt: skip


def naive_side(image, background):
    """The longer side of one image's box, found place by place."""
    places = [
        (i, j)
        for i in range(image.shape[1])
        for j in range(image.shape[2])
        if any(abs(float(value) - background) > 0.1 for value in image[:, i, j])
    ]
    if not places:
        return 0
    return max(max(p[axis] for p in places) - min(p[axis] for p in places) + 1 for axis in (0, 1))


@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([0.0, 0.5]))
def test_a_thing_s_side_is_that_of_its_box(seed, channels, background):
    draw = torch.Generator().manual_seed(seed)
    images = torch.full((3, channels, 7, 5), background)
    hit = torch.rand(images.shape, generator=draw) < 0.06
    images[hit] = torch.rand(int(hit.sum()), generator=draw)
    expected = [naive_side(image, background) for image in images]
    assert box_sides(images.split(2), background).tolist() == expected


def test_no_image_has_no_side():
    assert box_sides([]).tolist() == []


@given(st.lists(st.integers(1, 28), min_size=1, max_size=40), st.integers(0, 5))
def test_sizes_change_hands(sides, epoch):
    sides = torch.tensor(sides)
    factors = draw_exchanges(sides, 1e-3, 1e3, seed=4, epoch=epoch)
    assert factors.dtype == torch.float64
    exchanged = sides * factors
    torch.testing.assert_close(exchanged.sort().values, sides.double().sort().values)


def test_factors_are_cut_off_and_things_of_no_size_stay():
    sides = torch.tensor([4, 0, 20, 6, 0, 28, 5])
    free = draw_exchanges(sides, 1e-3, 1e3, seed=1, epoch=2)
    bound = draw_exchanges(sides, 0.5, 2, seed=1, epoch=2)
    assert torch.equal(bound, free.clamp(0.5, 2))
    assert free.max() > 2
    assert free.min() < 0.5
    assert free[[1, 4]].tolist() == [1, 1]


def test_each_epoch_and_seed_has_its_own_lot():
    sides = torch.arange(1, 60)
    lots = [
        draw_exchanges(sides, 0.01, 100, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert torch.equal(lots[0], draw_exchanges(sides, 0.01, 100, 0, 0))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(lots[one], lots[other])


@pytest.mark.parametrize("sides", [torch.tensor([[1, 2]]), torch.tensor([3, -1])])
def test_sides_that_are_none_are_refused(sides):
    with pytest.raises(InputError, match=r"needs sides \[N\] of at least 0, got shape"):
        draw_exchanges(sides, 0.5, 2, 0, 0)


@pytest.mark.parametrize("background", ["black", "grey"])
def test_training_images_are_shown_at_each_other_s_sizes(background):
    protocol = dataclasses.replace(SPEC.protocol, background=background)
    data = ScaleDataModule(dataclasses.replace(SPEC, protocol=protocol), batch_size=16, seed=3)
    loader = data.train_dataloader()
    dataset = loader.dataset
    plain = torch.cat(list(data.in_order("train")))
    sides = box_sides([plain], 0.5 if background == "grey" else 0.0)
    assert len(sides.unique()) > 5
    stored = data._images[data.indices["train"]]
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        factors = draw_exchanges(sides, 0.5, 2, 3, epoch)
        expected = protocol.render_each(stored, dataset.scales * factors)
        for indices in loader.sampler:
            images, _ = dataset[indices]
            torch.testing.assert_close(images, expected[indices[1]], atol=1e-6, rtol=0)
    # Validation images keep their sizes.
    validation = torch.cat([images for images, _ in data.val_dataloader()])
    assert torch.equal(validation, torch.cat(list(data.in_order("validation"))))


def test_the_sizes_shown_are_those_that_there_were():
    spec = dataclasses.replace(SPEC, train=400, exchange_sizes=(0.1, 10))
    data = ScaleDataModule(spec, batch_size=400, seed=1)
    loader = data.train_dataloader()
    (indices,) = loader.sampler
    before = box_sides(data.in_order("train")).sort().values
    after = box_sides([loader.dataset[indices][0]]).sort().values
    assert before[-1] - before[0] > 12
    # What is blurred or sharpened by a change of size gains or loses a pixel.
    assert (after - before).abs().max() <= 2
    assert (after - before).double().mean().abs() < 0.6


def test_sizes_that_are_all_alike_are_not_exchanged(tmp_path):
    for i in range(30):
        kind = tmp_path / "abc"[i % 3]
        kind.mkdir(exist_ok=True)
        Image.new("RGB", (12, 12), (200, 100, 8 * i)).save(kind / f"{i}.png")
    protocol = ScaleProtocol(16, 12)
    spec = DataSpec("folder", tmp_path, protocol, test=6, validation=6, exchange_sizes=(0.5, 2))
    with pytest.raises(
        InputError,
        match=r"things on the 18 training images are all 12 pixels large; take random_scale",
    ):
        ScaleDataModule(spec).train_dataloader()
    stream = dataclasses.replace(spec, source="stream_folder")
    with pytest.raises(InputError, match=r"and stream_folder is a stream; take random_scale"):
        ScaleDataModule(stream).train_dataloader()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"exchange_sizes": (2, 0.5)}, r"exchange_sizes must be a smallest and .* got \[2, 0.5\]"),
        ({"random_scale": (0.5, 2)}, r"both change images' sizes, .* leave one out"),
        (
            {"protocol": ScaleProtocol(background="edge")},
            r"before a plain background, and protocol.background is 'edge'; take 'black' or 'grey'",
        ),
        (
            {"protocol": ScaleProtocol(28, 20, train_band=(0.5, 2))},
            r"shows up to 40 pixels of the longer side on 28; take a larger canvas, or random_scale",
        ),
        ({"protocol": ScaleProtocol(side="shorter")}, r"up to 12 pixels of the shorter side on 28"),
    ],
)
def test_what_cannot_be_exchanged_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SPEC, **changed)
