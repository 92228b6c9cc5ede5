from __future__ import annotations

import gzip
import struct

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nearfar.data import DataSpec, ScaleDataModule, ScaleProtocol, list_sources, load_source
from nearfar.errors import InputError
from nearfar.grid import Axis
from nearfar.pyramid import resample


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.3, 2.0])
def test_content_covers_content_times_scale_pixels_around_the_centre(scale):
    protocol = ScaleProtocol(canvas=28, content=12, interpolation="bilinear")
    shown = protocol.render(torch.ones(1, 1, 8, 8), scale)[0, 0].double()
    at = torch.arange(28, dtype=torch.float64) + 0.5
    profile = shown.sum(0) / shown.sum()
    assert float((profile * at).sum()) == pytest.approx(14.0, abs=1e-6)
    # A box of side a has variance a²/12; the interpolation's triangle adds the kernel's own.
    side = 12 * scale
    width = max(1.0, 8 / side) * side / 8
    variance = float((profile * (at - 14) ** 2).sum())
    assert variance == pytest.approx(side**2 / 12 + width**2 / 6 - (side / 8) ** 2 / 12, rel=0.03)


def test_rendering_is_the_naive_reading_on_zeros():
    protocol = ScaleProtocol(canvas=10, content=6, interpolation="bilinear")
    image = torch.rand(4, 4, dtype=torch.float64)
    framed = np.pad(image.numpy(), 8)  # zeros far enough around it
    step = 6 * 1.5 / 4
    first = 5 - step * 3 / 2
    at = [(i + 0.5 - first) / step + 8 for i in range(10)]
    expected = naive.read_map(framed, at, at, 1.0, 1.0)
    torch.testing.assert_close(
        protocol.render(image[None, None], 1.5)[0, 0], torch.tensor(expected)
    )


@given(st.floats(0.2, 3), st.integers(1, 9), st.integers(1, 9))
def test_rendered_values_stay_within_bounds(scale, height, width):
    shown = ScaleProtocol().render(torch.rand(2, 3, height, width), scale)
    assert shown.shape == (2, 3, 28, 28)
    assert 0 <= shown.min() <= shown.max() <= 1


def test_the_longer_side_counts_and_the_aspect_is_kept():
    protocol = ScaleProtocol(canvas=32, content=16)
    shown = protocol.render(torch.ones(1, 1, 4, 8), 1.0)[0, 0]
    filled = shown > 0.5
    assert (filled.any(0).sum(), filled.any(1).sum()) == (16, 8)


def test_the_shorter_side_may_count_and_the_rest_is_cut_off():
    """ImageNet's: the shorter side to 8 pixels, the central 7 of it."""
    protocol = ScaleProtocol(canvas=7, content=8, side="shorter")
    images = torch.rand(2, 3, 8, 12)
    torch.testing.assert_close(
        protocol.render(images, 1.0),
        resample(
            images,
            (Axis.tiling(8, 8), Axis.tiling(12, 12)),
            (Axis(7, 1.0, 1.0, False), Axis(7, 3.0, 1.0, False)),
            kernel="bicubic",
            outside="zeros",
        ).clamp(0, 1),
    )
    factors = torch.tensor([1.0, 0.7])
    each = protocol.render_each(images, factors)
    torch.testing.assert_close(each[1:], protocol.render(images[1:], 0.7), rtol=0, atol=1e-5)


def test_digits_are_scikit_learn_s():
    data = load_source("digits")
    assert data.images.shape == (1797, 1, 8, 8)
    assert (data.images.min(), data.images.max()) == (0, 1)
    assert data.labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert data.class_names[3] == "3"


def write_idx(path, array):
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(">I", 0x800 + array.ndim))
        file.write(struct.pack(f">{array.ndim}I", *array.shape))
        file.write(array.astype(np.uint8).tobytes())
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))


def test_mnist_is_read_from_its_folder(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 6), ("t10k", 4)):
        images = np.arange(count * 28 * 28).reshape(count, 28, 28) % 251
        write_idx(raw / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count))
    data = load_source("mnist", tmp_path)
    assert data.images.shape == (10, 1, 28, 28)
    assert data.labels.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert data.class_names == tuple("0123456789")
    assert data.images.dtype == torch.uint8
    assert data.images[0, 0, 0, 3] == 3
    assert data.test_from == 6
    monkeypatch.setenv("NEARFAR_DATA", str(tmp_path))
    assert len(load_source("mnist").labels) == 10


@pytest.fixture
def small_mnist(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        write_idx(raw / f"{prefix}-images-idx3-ubyte.gz", np.ones((5, 28, 28)))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte.gz", np.arange(5))
    return raw


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (
            "images-idx3",
            lambda c: c[:-1],
            r"promises 5×28×28 values, that is 3936 bytes.* has 3935",
        ),
        ("images-idx3", lambda c: c + b"x", "but it has 3937; fetch it afresh"),
        ("images-idx3", lambda c: b"", "no idx file of 3 axes of bytes: it begins with nothing"),
        (
            "labels-idx1",
            lambda c: b"\x00\x00\x0d\x01" + c[4:],
            "begins with 00000d01 where 00000801",
        ),
        (
            "labels-idx1",
            lambda c: c[:-1] + b"\x0a",
            "has the label 10, but MNIST has the 10 classes",
        ),
        (
            "labels-idx1",
            lambda c: c[:7] + b"\x04" + c[8:-1],
            r"holds 5 images and t10k-labels-idx1-ubyte 4 labels, where each image needs one",
        ),
    ],
)
def test_idx_files_that_are_damaged(small_mnist, name, damage, message):
    assert len(load_source("mnist", small_mnist.parents[1]).labels) == 10
    file = small_mnist / f"t10k-{name}-ubyte"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=message):
        load_source("mnist", small_mnist.parents[1])


def test_splits_are_disjoint_stratified_and_fixed_by_their_seed():
    one, same, other = (ScaleDataModule(DataSpec(split_seed=s)) for s in (0, 0, 1))
    every = torch.cat(list(one.indices.values()))
    assert len(every) == len(every.unique()) == 1797
    assert [len(one.indices[k]) for k in ("train", "validation", "test")] == [900, 300, 597]
    for split in one.indices:
        assert torch.equal(one.indices[split], same.indices[split])
        shares = one.labels(split).bincount() / len(one.labels(split))
        assert (shares - 0.1).abs().max() < 0.01
    assert not torch.equal(one.indices["test"], other.indices["test"])


def test_batches_hold_every_training_image_once_in_seeded_order():
    data = ScaleDataModule(DataSpec(train=100), batch_size=32, seed=5)
    batches = list(data.train_dataloader())
    assert [len(labels) for _, labels in batches] == [32, 32, 32, 4]
    shown = torch.cat([images for images, _ in batches])
    whole = data.images("train", 1.0)
    assert torch.equal(shown.flatten(1).sum(1).sort().values, whole.flatten(1).sum(1).sort().values)
    again = torch.cat(
        [labels for _, labels in ScaleDataModule(DataSpec(train=100), 32, 5).train_dataloader()]
    )
    assert torch.equal(torch.cat([labels for _, labels in batches]), again)
    other = torch.cat(
        [labels for _, labels in ScaleDataModule(DataSpec(train=100), 32, 6).train_dataloader()]
    )
    assert not torch.equal(again, other)


def test_several_training_scales_are_drawn_by_seed():
    protocol = ScaleProtocol(train_scales=(0.5, 2.0))
    data = ScaleDataModule(DataSpec(protocol=protocol, train=100))
    shown, labels = data._shown("train")[0, list(range(100))]
    small, large = data.images("train", 0.5), data.images("train", 2.0)
    is_small = (shown == small).flatten(1).all(1)
    is_large = (shown == large).flatten(1).all(1)
    assert (is_small ^ is_large).all()
    assert 30 < is_small.sum() < 70
    assert torch.equal(labels, data.labels("train"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScaleProtocol(canvas=0), "of at least 1 pixel, got canvas=0"),
        (lambda: ScaleProtocol(interpolation="nearest"), "must be 'bicubic' or 'bilinear'"),
        (lambda: ScaleProtocol(test_scales=(1, 0)), "positive and finite"),
        (lambda: ScaleProtocol(train_scales=(1, 1.0)), "train_scales names a scale twice"),
        (lambda: ScaleProtocol().render(torch.ones(1, 1, 2, 2), -1), "positive and finite, got -1"),
        (lambda: load_source("cifar"), "no data set is named 'cifar'; the known ones are digits"),
        (lambda: DataSpec(train=-1), "train, validation and test of at least 0, got train=-1"),
        (lambda: DataSpec(split_seed=-1), "split_seed must be from 0"),
        (lambda: DataSpec(split="by_hand"), "split must be one of .*'official'.*, got 'by_hand'"),
        (lambda: DataSpec(augment="cutout"), "augment must be one of .*, got 'cutout'"),
        (lambda: DataSpec(normalize="whiten"), "normalize must be one of .*, got 'whiten'"),
        (lambda: DataSpec(pad=2), "pad is how far augment='crop_flip' and 'views' shift"),
        (lambda: DataSpec(augment="crop_flip", pad=0), "at least 1 pixel, got pad=0"),
        (lambda: DataSpec(random_scale=(2, 0.5)), r"smallest and a largest factor.* \[2, 0.5\]"),
        (lambda: DataSpec(random_scale=(0, 2)), "every scale must be positive"),
        (lambda: DataSpec(colour=-1), "colour is a standard deviation.* got colour=-1"),
        (lambda: ScaleDataModule(DataSpec(colour=0.1)).colours(), "images of 3 channels, got 1"),
        (lambda: ScaleProtocol(side="wide"), "side must be 'longer' or 'shorter', got 'wide'"),
        (lambda: DataSpec("folder", size=0), "size must be at least 1 pixel, got 0"),
        (
            lambda: DataSpec("folder", max_skipped=1),
            "share of the images, from 0 to below 1, got 1",
        ),
        (lambda: DataSpec(workers=-1), "workers must be at least 0, got -1"),
        (
            lambda: ScaleDataModule(DataSpec(max_skipped=0.5)),
            "are all needed, got .* max_skipped=0.5",
        ),
        (
            lambda: ScaleDataModule(DataSpec(size=8)),
            "images of digits have their own size and are all needed, got size=8",
        ),
        (
            lambda: ScaleDataModule(DataSpec(split="official")),
            "digits has no official test part; take split='seed'",
        ),
        (lambda: ScaleDataModule(DataSpec(train=1700)), "1797 images, too few for train=1700"),
        (lambda: ScaleDataModule(DataSpec(train=3)), "cannot split 3 images for train"),
        (lambda: ScaleDataModule(DataSpec(), batch_size=0), "batch_size must be at least 1, got 0"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"MNIST was not found in .*MNIST/raw; name the folder"):
        load_source("mnist", tmp_path)
    assert list_sources() == [
        "digits",
        "mnist",
        "fashion_mnist",
        "cifar10",
        "cifar100",
        "tiny_imagenet",
        "mnist_scale",
        "folder",
        "unlabelled",
        "stream_folder",
        "stream_tar",
        "stream_wds",
    ]


def test_bytes_are_rendered_as_the_numbers_they_stand_for():
    stored = torch.randint(256, (3, 3, 5, 7), dtype=torch.uint8)
    protocol = ScaleProtocol()
    assert torch.equal(protocol.render(stored, 0.7), protocol.render(stored.float() / 255, 0.7))


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
def test_an_image_of_the_canvas_s_size_is_itself(kernel):
    images = torch.rand(4, 3, 9, 9)
    protocol = ScaleProtocol(canvas=9, content=6, interpolation=kernel)
    assert torch.equal(protocol.render(images, 1.5), images)
    placed = protocol._axis(9, 1.0)
    tiling = Axis.tiling(9, 9)
    read = resample(
        images, (placed,) * 2, (tiling,) * 2, antialias=True, kernel=kernel, outside="zeros"
    )
    assert torch.equal(read, images)
