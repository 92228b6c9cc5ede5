from __future__ import annotations

import os

import pytest
import torch
from pictures import folder, noise
from safetensors.torch import load_file

from nearfar.data import DataSpec, ScaleDataModule, ScaleProtocol, load_source, stored_images
from nearfar.data.cache import cache_folder
from nearfar.data.decoding import decode
from nearfar.errors import InputError


@pytest.fixture
def decoded_paths(monkeypatch, tmp_path):
    """The files that are decoded; every folder is worth a cache, and the cache is the test's own."""
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stored_images, "CACHED_FROM", 1)
    paths = []

    def spy(path):
        paths.append(path)
        return decode(path)

    monkeypatch.setattr(stored_images, "decode", spy)
    return paths


def test_files_are_decoded_once(decoded_paths, tmp_path):
    root = folder(tmp_path / "images", 10)
    (root / "cat" / "bad.png").write_bytes(b"x")
    first = load_source("folder", root, max_skipped=0.1)
    assert len(decoded_paths) == 11
    again = load_source("folder", root, max_skipped=0.1)
    assert len(decoded_paths) == 11
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert first.skipped == again.skipped
    assert len(first.skipped) == 1
    assert len(list(cache_folder().glob("decoded-*.safetensors"))) == 1


def test_the_cache_holds_the_files_own_pixels(decoded_paths, tmp_path):
    noise(tmp_path / "images" / "a" / "0.png", 0, (7, 5))
    noise(tmp_path / "images" / "b" / "0.jpg", 1, (40, 60), quality=90)
    first = load_source("folder", tmp_path / "images")
    (file,) = cache_folder().iterdir()
    cached = load_file(file)
    assert cached["sizes"].tolist() == [[7, 5], [40, 60]]
    pixels = [decode(path) for path in sorted((tmp_path / "images").rglob("*.*"))]
    assert torch.equal(cached["pixels"], torch.cat([image.flatten() for image in pixels]))
    again = load_source("folder", tmp_path / "images")
    assert len(decoded_paths) == 2
    for data in (first, again):
        images = data.images[torch.tensor([1, 0])]
        assert all(torch.equal(a, b) for a, b in zip(images, pixels[::-1], strict=True))


def test_whatever_changes_the_files_has_them_decoded_anew(decoded_paths, tmp_path):
    root = folder(tmp_path / "images", 4)

    def decodes():
        del decoded_paths[:]
        load_source("folder", root)
        return len(decoded_paths)

    assert (decodes(), decodes()) == (4, 0)
    noise(root / "cat" / "new.png", 1)
    assert decodes() == 5
    (root / "cat" / "new.png").rename(root / "cat" / "other.png")
    assert decodes() == 5
    os.utime(root / "cat" / "other.png", ns=(1, 1))
    assert decodes() == 5
    noise(root / "cat" / "other.png", 1, (20, 20))
    os.utime(root / "cat" / "other.png", ns=(1, 1))
    assert decodes() == 5
    assert decodes() == 0


def test_how_images_are_used_does_not_have_them_decoded_anew(decoded_paths, tmp_path):
    root = folder(tmp_path / "images", 20)
    load_source("folder", root)
    del decoded_paths[:]
    for protocol in (ScaleProtocol(9, 9), ScaleProtocol(30, 24, "shorter", "bilinear", "grey")):
        for channels in (1, 3):
            ScaleDataModule(DataSpec("folder", root, protocol, channels=channels, max_skipped=0.5))
    assert decoded_paths == []
    assert len(list(cache_folder().iterdir())) == 1


def test_images_that_need_not_have_one_size_are_not_taken_for_those_that_must(
    decoded_paths, tmp_path
):
    root = folder(tmp_path / "cifar10", 4, ("train", "test"))
    assert load_source("folder", root).images.shape == (8, 3, 12, 12)
    with pytest.raises(InputError, match="8 of 8 images .*it is 12×12 where 32×32 is expected"):
        load_source("cifar10", tmp_path)
    assert load_source("folder", root).images.shape == (8, 3, 12, 12)
    assert len(decoded_paths) == 16


def test_a_damaged_cache_is_made_anew(decoded_paths, tmp_path, caplog):
    root = folder(tmp_path / "images", 4)
    first = load_source("folder", root)
    (file,) = cache_folder().glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    again = load_source("folder", root)
    assert len(decoded_paths) == 8
    assert torch.equal(first.images, again.images)
    assert "does not have its checksum" in caplog.text


def test_small_sets_and_large_ones_are_not_cached_and_the_cache_can_be_off(
    decoded_paths, tmp_path, monkeypatch
):
    root = folder(tmp_path / "images", 4)
    monkeypatch.setattr(stored_images, "CACHED_FROM", 10**6)
    small = load_source("folder", root)
    monkeypatch.setattr(stored_images, "CACHED_FROM", 1)
    monkeypatch.setattr(stored_images, "CACHED_UP_TO", 4 * 3 * 12 * 12 - 1)
    large = load_source("folder", root)
    monkeypatch.setattr(stored_images, "CACHED_UP_TO", 4 * 3 * 12 * 12)
    monkeypatch.setenv("NEARFAR_CACHE", "off")
    uncached = load_source("folder", root)
    assert len(decoded_paths) == 12
    assert torch.equal(small.images, large.images)
    assert torch.equal(small.images, uncached.images)
    assert not (tmp_path / "cache").exists()
    assert not list(tmp_path.glob("off"))
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "cache"))
    load_source("folder", root)
    assert len(list((tmp_path / "cache").iterdir())) == 1
