from __future__ import annotations

import os

import pytest
import torch
from pictures import folder, noise

from nearfar.data import load_source
from nearfar.data.cache import cache_folder
from nearfar.data.sources import files


@pytest.fixture
def decoding(monkeypatch, tmp_path):
    """Counts the files that are decoded; every folder is worth keeping, in a cache of its own."""
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "WORTH_KEEPING", 1)
    seen = []

    def spy(path, at_least):
        seen.append(path)
        return decoded(path, at_least)

    decoded = files.decoded
    monkeypatch.setattr(files, "decoded", spy)
    return seen


def test_files_are_decoded_once(decoding, tmp_path):
    root = folder(tmp_path / "images", 10)
    (root / "cat" / "bad.png").write_bytes(b"x")
    first = load_source("folder", root, 12, max_skipped=0.1)
    assert len(decoding) == 11
    again = load_source("folder", root, 12, max_skipped=0.1)
    assert len(decoding) == 11
    assert torch.equal(first.images, again.images)
    assert first.skipped == again.skipped
    assert len(first.skipped) == 1
    assert len(list(cache_folder().glob("decoded-*.safetensors"))) == 1


def test_whatever_changes_the_images_has_them_decoded_anew(decoding, tmp_path):
    root = folder(tmp_path / "images", 4)

    def decodes(size=12, side="longer"):
        del decoding[:]
        load_source("folder", root, size, side=side)
        return len(decoding)

    assert (decodes(), decodes()) == (4, 0)
    assert (decodes(13), decodes(side="shorter"), decodes()) == (4, 4, 0)
    noise(root / "cat" / "new.png", 1)
    assert decodes() == 5
    (root / "cat" / "new.png").rename(root / "cat" / "other.png")
    assert decodes() == 5
    os.utime(root / "cat" / "other.png", ns=(1, 1))
    assert decodes() == 5
    noise(root / "cat" / "other.png", 1, (20, 20))
    os.utime(root / "cat" / "other.png", ns=(1, 1))
    assert decodes() == 5


def test_a_damaged_cache_is_made_anew(decoding, tmp_path, caplog):
    root = folder(tmp_path / "images", 4)
    first = load_source("folder", root, 12)
    (kept,) = cache_folder().glob("*.safetensors")
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    again = load_source("folder", root, 12)
    assert len(decoding) == 8
    assert torch.equal(first.images, again.images)
    assert "does not have its checksum" in caplog.text


def test_small_sets_and_large_ones_are_not_kept_and_the_cache_can_be_off(
    decoding, tmp_path, monkeypatch
):
    root = folder(tmp_path / "images", 4)
    monkeypatch.setattr(files, "WORTH_KEEPING", 10**6)
    load_source("folder", root, 12)
    monkeypatch.setattr(files, "WORTH_KEEPING", 1)
    monkeypatch.setattr(files, "KEPT_AT_MOST", 4 * 3 * 12 * 12 - 1)
    load_source("folder", root, 12)
    monkeypatch.setattr(files, "KEPT_AT_MOST", 2**30)
    monkeypatch.setenv("NEARFAR_CACHE", "off")
    load_source("folder", root, 12)
    assert len(decoding) == 12
    assert not (tmp_path / "cache").exists()
    assert not list(tmp_path.glob("off"))
