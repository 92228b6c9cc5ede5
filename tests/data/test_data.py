from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import folder
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize, to_pil_image

from nearfar.data import (
    DataSpec,
    ScaleDataModule,
    ScaleProtocol,
    list_sources,
    load_source,
    register_source,
)
from nearfar.data.canvas import FILTERS
from nearfar.data.sources import registry
from nearfar.data.sources.mnist import digits_source
from nearfar.errors import InputError


def covered(pixels, begin, end):
    """The share of each canvas pixel that lies between two positions."""
    return [max(0.0, min(i + 1, end) - max(i, begin)) for i in range(pixels)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("scale", [0.37, 0.5, 1.0, 1.3, 2.0])
def test_content_covers_content_times_scale_pixels_around_the_centre(scale, interpolation):
    protocol = ScaleProtocol(canvas=28, content=12, interpolation=interpolation)
    canvas = protocol.render(torch.ones(1, 1, 8, 8), scale)[0, 0]
    shares = torch.tensor(covered(28, 14 - 6 * scale, 14 + 6 * scale))
    torch.testing.assert_close(canvas, torch.outer(shares, shares), rtol=0, atol=1e-6)


def naive_triangle(samples, position, width):
    """The triangle-weighted mean of samples around a position, 0 at the first one's outer edge."""
    position = min(max(position, 0), len(samples))
    weights = [max(0.0, 1 - abs(i + 0.5 - position) / width) for i in range(len(samples))]
    return np.dot(weights, samples) / sum(weights)


@pytest.mark.parametrize("scale", [0.4, 0.9, 1.5])
def test_rendering_is_the_naive_reading_times_the_covered_area(scale):
    protocol = ScaleProtocol(canvas=10, content=6, interpolation="bilinear")
    image = torch.rand(4, 4, dtype=torch.float64)
    step = 6 * scale / 4
    begin = 5 - 2 * step
    at = [(i + 0.5 - begin) / step for i in range(10)]
    width = max(1, 1 / step)
    tall = [[naive_triangle(column, y, width) for column in image.numpy().T] for y in at]
    read = [[naive_triangle(row, x, width) for x in at] for row in tall]
    shares = covered(10, begin, 10 - begin)
    expected = torch.tensor(np.array(read) * np.outer(shares, shares))
    canvas = protocol.render(image[None, None], scale)[0, 0]
    torch.testing.assert_close(canvas, expected)


@given(st.floats(0.2, 3), st.integers(1, 9), st.integers(1, 9))
def test_rendered_values_stay_within_bounds(scale, height, width):
    canvases = ScaleProtocol().render(torch.rand(2, 3, height, width), scale)
    assert canvases.shape == (2, 3, 28, 28)
    assert 0 <= canvases.min() <= canvases.max() <= 1


def test_the_longer_side_counts_and_the_aspect_is_kept():
    protocol = ScaleProtocol(canvas=32, content=16)
    canvas = protocol.render(torch.ones(1, 1, 4, 8), 1.0)[0, 0]
    filled = canvas > 0.5
    assert (filled.any(0).sum(), filled.any(1).sum()) == (16, 8)


def test_the_shorter_side_may_count_and_the_rest_is_cut_off():
    """ImageNet's: the shorter side to 8 pixels, the central 7 of it, as torchvision cuts it."""
    protocol = ScaleProtocol(canvas=7, content=8, side="shorter")
    images = torch.rand(2, 3, 8, 12)
    assert torch.equal(protocol.render(images, 1.0), center_crop(images, [7, 7]))
    factors = torch.tensor([1.0, 0.7])
    each = protocol.render_each(images, factors)
    assert torch.equal(each[:1], protocol.render(images[:1], 1.0))
    torch.testing.assert_close(each[1:], protocol.render(images[1:], 0.7), rtol=0, atol=1e-6)
    pixels = torch.randint(256, (3, 20, 33), dtype=torch.uint8)
    cut = center_crop(resize(to_pil_image(pixels), 8, InterpolationMode.BICUBIC), [7, 7])
    assert torch.equal(protocol.render(pixels[None], 1.0)[0], pil_to_tensor(cut) / 255)


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
    images = torch.cat([images for images, _ in batches])
    whole = data.images("train", 1.0)
    assert torch.equal(
        images.flatten(1).sum(1).sort().values, whole.flatten(1).sum(1).sort().values
    )
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
    images, labels = data._dataset("train")[0, list(range(100))]
    small, large = data.images("train", 0.5), data.images("train", 2.0)
    is_small = (images - small).abs().flatten(1).amax(1) <= 1e-6
    is_large = (images - large).abs().flatten(1).amax(1) <= 1e-6
    assert (is_small ^ is_large).all()
    assert 30 < is_small.sum() < 70
    assert torch.equal(labels, data.labels("train"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ScaleProtocol(canvas=0),
            r"from 1 to 16384 pixels, or two \(height, width\), got canvas=0",
        ),
        (
            lambda: ScaleProtocol(interpolation="cubic"),
            "must be one of nearest, box, bilinear, hamming, bicubic, lanczos, got 'cubic'",
        ),
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
        (
            lambda: ScaleProtocol(side="wide"),
            "side must be one of longer, shorter, both, got 'wide'",
        ),
        (lambda: DataSpec(channels=2), r"channels must be 1 \(grey\) or 3 \(RGB\), got 2"),
        (
            lambda: DataSpec("folder", max_skipped=1),
            "share of the images, from 0 to below 1, got 1",
        ),
        (lambda: DataSpec(workers=-1), "workers must be at least 0, got -1"),
        (
            lambda: ScaleDataModule(DataSpec(max_skipped=0.5)),
            "the images of digits are all needed, got max_skipped=0.5",
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
        "mnist_large_scale/NAME",
        "stir_digits/NAME",
        "sample_cifar10",
        "sample_digits",
        "sample_tiny",
        "folder",
        "stream_folder",
        "unlabelled",
        "stream_tar",
        "stream_wds",
        "hfds/NAME",
    ]


def test_names_that_a_program_registers_are_listed_with_the_others():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_SOURCES", dict(registry._SOURCES))
        register_source("stripes")(digits_source)
        register_source("plain/")(lambda root, rest: load_source(rest))
        assert len(ScaleDataModule(DataSpec("plain/stripes")).class_names) == 10
        # Data sets with a name first, then those whose images are anybody's.
        assert list_sources()[11:14] == ["sample_tiny", "stripes", "plain/NAME"]
        assert list_sources()[14] == "folder"
        with pytest.raises(InputError, match="stripes, plain/NAME, folder, .*, hfds/NAME$"):
            load_source("stripe")
        with pytest.raises(InputError, match="named 'stripes' is registered already"):
            register_source("stripes")(digits_source)
    assert "stripes" not in list_sources()


def test_bytes_are_rendered_as_the_numbers_they_stand_for():
    stored = torch.randint(256, (3, 3, 5, 7), dtype=torch.uint8)
    protocol = ScaleProtocol()
    assert torch.equal(protocol.render(stored, 0.7), protocol.render(stored.float() / 255, 0.7))


@pytest.mark.parametrize("interpolation", FILTERS)
def test_an_image_of_the_canvas_s_size_is_itself(interpolation):
    images = torch.rand(4, 3, 9, 9)
    protocol = ScaleProtocol(canvas=9, content=3, interpolation=interpolation)
    assert torch.equal(protocol.render(images, 3), images)
    pixels = torch.randint(256, (4, 3, 9, 9), dtype=torch.uint8)
    protocol = ScaleProtocol(canvas=9, content=9, interpolation=interpolation)
    assert torch.equal(protocol.render(pixels, 1), pixels / 255)


def test_channels_are_asked_for_by_the_spec(tmp_path):
    grey = ScaleDataModule(DataSpec(train=60, channels=3))
    assert grey.in_chans == 3
    (images, _), *_ = grey.train_dataloader()
    assert torch.equal(images, images[:, :1].expand(-1, 3, -1, -1))
    spec = DataSpec("folder", folder(tmp_path, 20), ScaleProtocol(12, 12), channels=1)
    colour = ScaleDataModule(spec, batch_size=20)
    assert colour.in_chans == 1
    paths = sorted(tmp_path.rglob("*.png"))
    lumas = [pil_to_tensor(Image.open(path).convert("L")) / 255 for path in paths]
    which = colour.indices["train"]
    expected = torch.stack(lumas)[which]
    assert torch.equal(colour.images("train", 1.0), expected)
    assert torch.equal(torch.cat(list(colour.in_order("train"))), expected)
