from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nearfar.data import DataSpec, LabelledImages, ScaleDataModule, mnist_scale
from nearfar.data.sources import mnist_scale as module
from nearfar.data.sources.mnist_scale import mnist_scale_source
from nearfar.errors import InputError

_BRIGHT = 200
DATA = Path(os.environ.get("NEARFAR_DATA", "data"))


def pool():
    """300 pictures with a bright square each, whose side tells the class, on 28×28."""
    labels = np.arange(300) % 3
    images = np.zeros((300, 1, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        half = 5 + 2 * label
        image[0, 14 - half : 14 + half, 14 - half : 14 + half] = _BRIGHT
    names = ("0", "1", "2")
    return LabelledImages(torch.from_numpy(images), torch.from_numpy(labels), names, 240)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The protocol on that pool: 90 training, 30 validation, 150 test images."""
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "SIZES", (90, 30, 150))
    monkeypatch.setattr(module, "idx_source", lambda kind: lambda root: pool())
    return tmp_path / "cache"


def test_every_image_has_a_size_of_its_own(small):
    data = mnist_scale_source(None, 0)
    assert (len(data.images), data.validation_from, data.test_from) == (270, 90, 120)
    scales = load_file(next(small.glob("*.safetensors")))["scales"]
    assert len(scales.unique()) == 270
    assert 0.3 <= float(scales.min()) < 0.32
    assert 0.98 < float(scales.max()) <= 1.0
    assert float(scales.mean()) == pytest.approx(0.65, abs=0.03)
    # A square of side 2h has brightness times (2 h s)², about its centre.
    area = data.images[:, 0].double().sum((1, 2)) / _BRIGHT
    side = 2 * (5 + 2 * data.labels).double() * scales
    wide = side > 8  # where edges weigh little
    assert torch.allclose(area[wide].sqrt(), side[wide], rtol=0.08)
    middle = torch.arange(28.0, dtype=torch.float64) + 0.5
    weight = data.images[:, 0].double()
    centre = (weight.sum(1) * middle).sum(1) / weight.sum((1, 2))
    assert torch.allclose(centre, torch.full_like(centre, 14.0), atol=0.6)


def test_parts_are_disjoint_stratified_and_belong_to_the_fold(small):
    first, again, other = (mnist_scale_source(None, fold) for fold in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    for data in (first, other):
        for part in data.labels.tensor_split((90, 120)):
            assert part.bincount().unique().numel() == 1


def test_it_is_made_once_and_a_damaged_copy_is_made_anew(small, monkeypatch, caplog):
    folds = []
    real = module._make
    monkeypatch.setattr(module, "_make", lambda *args: folds.append(args[-1]) or real(*args))
    whole = mnist_scale_source(None, 0).images
    assert torch.equal(mnist_scale_source(None, 0).images, whole)
    assert folds == [0]
    (file,) = small.glob("*.safetensors")
    tensors = load_file(file)
    tensors["images"][0, 0, 0, 0] += 1
    save_file(tensors, file, metadata={"sha256": "0" * 64})
    with caplog.at_level(logging.WARNING):
        assert torch.equal(mnist_scale_source(None, 0).images, whole)
    assert "does not have its checksum and is made anew" in caplog.text
    file.write_bytes(b"half")
    assert torch.equal(mnist_scale_source(None, 0).images, whole)
    assert folds == [0, 0, 0]
    assert torch.equal(load_file(file)["images"], whole)


def test_the_spec_is_the_published_protocol(small):
    data = ScaleDataModule(mnist_scale(fold=2))
    assert {name: len(which) for name, which in data.indices.items()} == {
        "train": 90,
        "validation": 30,
        "test": 150,
    }
    stored = mnist_scale_source(None, 2)
    images = data.images("validation", 1.0)
    assert torch.equal(images, stored.images[90:120].float() / 255)
    few = ScaleDataModule(mnist_scale(fold=2, train=30, test=60))
    assert set(few.indices["train"].tolist()) < set(data.indices["train"].tolist())
    assert few.labels("test").bincount().tolist() == [20, 20, 20]


def test_its_own_parts_are_kept(small):
    with pytest.raises(InputError, match="comes split into training.*take split='official'"):
        ScaleDataModule(DataSpec("mnist_scale", split="seed"))
    with pytest.raises(InputError, match="has 90 images for train, got train=91; ask for fewer"):
        ScaleDataModule(mnist_scale(0, train=91))


@pytest.mark.skipif(not (DATA / "MNIST").is_dir(), reason="$NEARFAR_DATA holds no MNIST")
def test_folds_are_the_same_bits_everywhere(tmp_path, monkeypatch):
    """What the committed figures were measured on."""
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path))
    data = mnist_scale_source(DATA, 0)
    assert (len(data.images), data.validation_from, data.test_from) == (62_000, 10_000, 12_000)
    from nearfar.data.cache import checksum

    assert checksum({"images": data.images, "labels": data.labels})[:16] == "2f3d985941e904ec"
