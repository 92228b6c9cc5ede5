from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from pictures import folder, noise
from PIL import Image

from nearfar.data import DataSpec, ScaleDataModule, ScaleProtocol, decoding, load_source
from nearfar.data.unreadable import listing_skipped
from nearfar.errors import InputError
from nearfar.training import FitSpec, ModelSpec, train

PROTOCOL = ScaleProtocol(canvas=12, content=12, test_scales=(1.0,))


def rows(file):
    with file.open(newline="") as lines:
        return list(csv.reader(lines))


@pytest.fixture
def images(tmp_path):
    """Forty images, and one of each kind that cannot be used."""
    root = folder(tmp_path / "images", 40)
    whole = (root / "cat" / "000.png").read_bytes()
    (root / "cat" / "100cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "cat" / "101empty.jpg").write_bytes(b"")
    frames = [Image.new("L", (8, 8), value) for value in (0, 250)]
    frames[0].save(root / "dog" / "102moving.gif", save_all=True, append_images=frames[1:])
    return root


@pytest.mark.parametrize("source", ["folder", "stream_folder"])
def test_what_cannot_be_read_is_left_out_and_listed(images, source):
    whole = load_source("folder", folder(images.parent / "whole", 40))
    data = load_source(source, images, max_skipped=0.1)
    names = [path.rpartition("/")[2] for path, _ in data.skipped]
    assert names == ["100cut.png", "101empty.jpg", "102moving.gif"]
    assert "truncated" in data.skipped[0][1]
    assert "cannot identify image file" in data.skipped[1][1]
    assert data.skipped[2][1] == "it is animated: it holds 2 pictures"
    images = data.images[torch.arange(40)]
    assert all(torch.equal(a, b) for a, b in zip(images, whole.images, strict=True))
    assert torch.equal(data.labels, whole.labels)


@pytest.mark.parametrize("source", ["folder", "stream_folder"])
def test_more_than_the_share_is_refused_with_the_list_written(images, tmp_path, source):
    out = tmp_path / "run"
    spec = DataSpec(source, images, PROTOCOL, max_skipped=0.06)
    with pytest.raises(
        InputError,
        match=r"3 of 43 images cannot be read: .*100cut.*max_skipped=0.06 .* listed in .*run/skipped.csv",
    ):
        train(ModelSpec("cnn_small"), spec, FitSpec(epochs=1), out=out)
    listed = rows(out / "skipped.csv")
    assert listed[0] == ["path", "reason"]
    assert [path for path, _ in listed[1:]] == [
        str(images / name) for name in ("cat/100cut.png", "cat/101empty.jpg", "dog/102moving.gif")
    ]
    assert not (out / "weights.safetensors").exists()
    # The mended command takes the same folder, and leaves the list beside the net.
    spec = DataSpec(source, images, PROTOCOL, max_skipped=0.07)
    train(ModelSpec("cnn_small"), spec, FitSpec(epochs=1), out=out)
    assert rows(out / "skipped.csv") == listed


def test_a_folder_with_a_configuration_of_one_s_own_is_never_taken(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(InputError, match="is not empty and holds no unfinished run"):
        train(ModelSpec("cnn_small"), out=out)
    assert (out / "config.yaml").read_text() == "seed: 1\n"


def test_nothing_skipped_leaves_no_list(tmp_path):
    spec = DataSpec("folder", folder(tmp_path / "images", 30), PROTOCOL)
    assert listing_skipped(lambda: ScaleDataModule(spec), tmp_path / "skipped.csv").skipped == ()
    assert not (tmp_path / "skipped.csv").exists()


def test_the_list_goes_when_the_files_are_repaired(tmp_path):
    spec = DataSpec("folder", folder(tmp_path / "images", 30), PROTOCOL, max_skipped=0.1)
    (tmp_path / "images" / "cat" / "bad.png").write_bytes(b"x")
    listing_skipped(lambda: ScaleDataModule(spec), tmp_path / "skipped.csv")
    assert len(rows(tmp_path / "skipped.csv")) == 2
    (tmp_path / "images" / "cat" / "bad.png").unlink()
    listing_skipped(lambda: ScaleDataModule(spec), tmp_path / "skipped.csv")
    assert not (tmp_path / "skipped.csv").exists()


def test_hidden_folders_inside_a_class_are_passed_over(tmp_path):
    root = folder(tmp_path, 10)
    for hidden in (".ipynb_checkpoints", "deep/.thumbs", "__MACOSX"):
        noise(root / "cat" / hidden / "000.png", 1)
    assert len(load_source("folder", root).labels) == 10


def test_one_in_a_hundred_is_left_out_by_default(tmp_path):
    root = folder(tmp_path, 99)
    (root / "cat" / "bad.png").write_bytes(b"x")
    assert len(load_source("folder", root).skipped) == 1
    (root / "dog" / "bad.png").write_bytes(b"x")
    with pytest.raises(InputError, match="2 of 101 images cannot be read"):
        load_source("folder", root)


def test_a_class_of_which_nothing_is_left(tmp_path):
    root = folder(tmp_path, 30)
    (root / "emu").mkdir()
    (root / "emu" / "0.png").write_bytes(b"x")
    with pytest.raises(InputError, match="no image of emu can be read; repair them"):
        load_source("folder", root, max_skipped=0.5)


def test_the_test_part_begins_where_it_does_after_some_are_left_out(tmp_path):
    root = folder(tmp_path, 10, ("train", "test"))
    (root / "train" / "cat" / "bad.png").write_bytes(b"x")
    (root / "test" / "cat" / "bad.png").write_bytes(b"x")
    data = load_source("folder", root, max_skipped=0.2)
    assert (data.test_from, len(data.labels), len(data.skipped)) == (10, 20, 2)


def test_images_of_too_many_pixels(tmp_path, monkeypatch):
    root = folder(tmp_path, 10)
    noise(root / "cat" / "large.png", 0, (40, 60))
    monkeypatch.setattr(decoding, "PIXEL_LIMIT", 2399)
    data = load_source("folder", root, max_skipped=0.2)
    assert data.skipped[0][1].startswith("it has 60×40 pixels, more than the")
    # Pillow's own limit, below which it only warns, is a reason like any other.
    monkeypatch.setattr(decoding, "PIXEL_LIMIT", 10**8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    assert load_source("folder", root).skipped == ()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = load_source("folder", root, max_skipped=0.2)
    assert "could be decompression bomb" in data.skipped[0][1]


def test_a_phone_s_jpeg_with_a_second_picture_is_no_animation(tmp_path):
    root = folder(tmp_path, 10)
    first, second = (Image.fromarray(np.full((8, 8, 3), v, np.uint8)) for v in (200, 10))
    first.save(root / "cat" / "phone.jpg", "MPO", save_all=True, append_images=[second])
    data = load_source("folder", root)
    assert data.skipped == ()
    image = data.images[torch.tensor([5])][0]
    assert image.shape == (3, 8, 8)
    assert image.min() > 190


def test_published_sets_have_no_file_to_spare(tmp_path):
    for part in ("train", "test"):
        for i in range(200):
            noise(tmp_path / "cifar10" / part / "ab"[i % 2] / f"{i}.png", i, (32, 32))
    (tmp_path / "cifar10" / "test" / "a" / "0.png").write_bytes(b"x")
    with pytest.raises(
        InputError, match=r"1 of 400 images cannot be read: .*; repair or remove them$"
    ):
        load_source("cifar10", tmp_path)
