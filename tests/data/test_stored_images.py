from __future__ import annotations

import numpy as np
import pytest
import torch
from pictures import folder, noise
from PIL import Image

from nearfar.data import DataSpec, ScaleDataModule, ScaleProtocol, load_source, stored_images
from nearfar.data.image_dataset import image_sizes, take_images
from nearfar.data.unreadable import UnreadableFilesError

SIZES = ((30, 40), (9, 21), (500, 600))


@pytest.fixture
def photos(tmp_path):
    """Two classes of images of three sizes, and a file that is none."""
    for c, kind in enumerate("ab"):
        for i, size in enumerate(SIZES):
            noise(tmp_path / "images" / kind / f"{i}.jpg", 10 * c + i, size)
    (tmp_path / "images" / "a" / "damaged.jpg").write_bytes(b"no image")
    return tmp_path / "images"


def by_pillow(root, *left_out):
    """Every image of a folder as Pillow decodes it."""
    paths = sorted(path for path in root.rglob("*.*") if path.name not in left_out)
    return [np.array(Image.open(path)).transpose(2, 0, 1) for path in paths]


@pytest.mark.parametrize("source", ["folder", "stream_folder"])
def test_images_have_their_native_size_and_pixels(photos, monkeypatch, source):
    monkeypatch.setattr(stored_images, "CACHED_FROM", 0)
    expected = by_pillow(photos, "damaged.jpg")
    for _ in range(2):  # made, and from the cache
        data = load_source(source, photos, max_skipped=0.5)
        assert data.images.channels == 3
        assert image_sizes(data.images).tolist() == [list(size) for size in SIZES * 2]
        for image, pixels in zip(data.images[torch.arange(6)], expected, strict=True):
            np.testing.assert_array_equal(image.numpy(), pixels)
        some = take_images(data.images, torch.tensor([5, 1]))
        assert some.sizes.tolist() == [[500, 600], [9, 21]]
        np.testing.assert_array_equal(some[torch.tensor([1])][0].numpy(), expected[1])


def test_images_of_one_size_are_one_tensor(tmp_path, monkeypatch):
    root = folder(tmp_path, 6)
    data = load_source("folder", root)
    np.testing.assert_array_equal(data.images.numpy(), np.stack(by_pillow(root)))
    assert image_sizes(data.images).tolist() == [[12, 12]] * 6
    assert image_sizes(load_source("digits").images)[:2].tolist() == [[8, 8]] * 2
    # Many would be in memory twice while they are put together.
    monkeypatch.setattr(stored_images, "_STACKED_UP_TO", 6 * 3 * 12 * 12 - 1)
    many = load_source("folder", root)
    assert isinstance(many.images, stored_images.DecodedImages)
    assert torch.equal(torch.stack(many.images[torch.arange(6)]), data.images)


def test_more_than_fits_into_memory_is_streamed(photos, monkeypatch):
    (photos / "a" / "damaged.jpg").unlink()
    spec = DataSpec(
        "folder", photos, ScaleProtocol(16, 16, test_scales=(1.0,)), train=2, validation=2
    )
    needed = 2 * 3 * sum(height * width for height, width in SIZES)
    monkeypatch.setattr(stored_images, "MEMORY_LIMIT", needed)
    memory = ScaleDataModule(spec, seed=1)
    assert isinstance(memory._images, stored_images.DecodedImages)
    monkeypatch.setattr(stored_images, "MEMORY_LIMIT", needed - 1)
    for _ in range(2):  # anew each time: what is too much is not cached
        stream = ScaleDataModule(spec, seed=1)
        assert isinstance(stream._images, stored_images.StreamedImages)
        assert stream.fingerprint() == memory.fingerprint()
        assert torch.equal(image_sizes(stream._images), image_sizes(memory._images))
        for split in ("train", "validation", "test"):
            assert torch.equal(stream.images(split, 1.0), memory.images(split, 1.0))


@pytest.mark.parametrize("cached_from", [0, 10**6])
@pytest.mark.parametrize("source", ["folder", "stream_folder", "unlabelled"])
def test_a_folder_of_which_nothing_can_be_read(tmp_path, monkeypatch, source, cached_from):
    monkeypatch.setattr(stored_images, "CACHED_FROM", cached_from)
    for kind in "ab":
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "0.png").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(UnreadableFilesError, match="2 of 2 images cannot be read: ") as caught:
            load_source(source, tmp_path)
        assert [path for path, _ in caught.value.skipped] == [
            str(tmp_path / kind / "0.png") for kind in "ab"
        ]
