"""STIR's digits and MNIST Large Scale, on a small pool of squares and against their rules in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nearfar.data import LabelledImages
from nearfar.data.sources import load_source, mnist_large_scale, stir
from nearfar.data.sources.mnist_large_scale import smoothed_digits
from nearfar.errors import InputError


def square(half=6):
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[:, 14 - half : 14 + half, 14 - half : 14 + half] = 255
    return image


@pytest.fixture
def pool(monkeypatch, tmp_path):
    """120 squares a class to train, 120 to test, of two classes."""
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path))
    images = torch.stack([square(4 + 3 * (i % 2)) for i in range(480)])
    data = LabelledImages(images, torch.arange(480) % 2, ("0", "1"), 240)
    for module in (mnist_large_scale, stir):
        monkeypatch.setattr(module, "idx_source", lambda kind: lambda root: data)
    monkeypatch.setattr(mnist_large_scale, "_VALIDATION", 150)


def test_the_rules_in_loops():
    """At its own size: blurred by 7/8 pixels, the arctangent, stretched; bicubic reading changes nothing."""
    image = torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8)
    image[:, :5], image[:, -5:], image[:, :, :5], image[:, :, -5:] = 0, 0, 0, 0
    at = np.arange(-30, 31)
    line = np.exp(-(at**2) / (2 * (7 / 8) ** 2))
    line /= line.sum()
    v = np.pad(image[0].numpy().astype(float), 30)
    v = np.apply_along_axis(lambda row: np.convolve(row, line, "same"), 0, v)
    v = np.apply_along_axis(lambda row: np.convolve(row, line, "same"), 1, v)
    v = v[20:-20, 20:-20]
    v = 2 / math.pi * np.arctan(0.02 * (v - 128))
    expected = 255 * (v - v.min()) / (v.max() - v.min())
    output = smoothed_digits(image, 28, 48, 10, 10)
    assert output.shape == (1, 1, 48, 48)
    assert output.dtype == torch.uint8
    assert np.abs(output[0, 0].numpy() - expected).max() <= 1  # cut to whole numbers, in float32


@pytest.mark.parametrize("side", [14, 28, 51.5, 112])
def test_a_digit_has_its_size_and_its_position(side):
    """A square of 12 of 28 pixels, where it was put; half of its height is where its edges are."""
    top, left = 3.0, 112 - side - 2
    output = smoothed_digits(square(), side, 112, top, left)[0, 0].double()
    bright = output > 127
    assert float(bright.any(1).sum()) == pytest.approx(12 / 28 * side, abs=2)
    weight = output * bright
    at = torch.arange(112, dtype=torch.float64) + 0.5
    assert float((weight.sum(1) * at).sum() / weight.sum()) == pytest.approx(
        top + side / 2, abs=0.6
    )
    assert float((weight.sum(0) * at).sum() / weight.sum()) == pytest.approx(
        left + side / 2, abs=0.6
    )


def test_large_scale_has_its_parts_and_scales(pool):
    data = load_source("mnist_large_scale/2-0.5")
    assert data.images.shape == (480, 1, 112, 112)
    assert (data.validation_from, data.test_from) == (150, 240)
    extent = (data.images[:, 0] > 127).any(1).sum(1)
    for label, half in enumerate((4, 7)):
        train, test = (
            extent[:240][data.labels[:240] == label],
            extent[240:][data.labels[240:] == label],
        )
        assert train.float().mean() == pytest.approx(4 * half, abs=1.5)
        assert test.float().mean() == pytest.approx(half, abs=1.5)
    other = load_source("mnist_large_scale/2-8")  # four times the canvas: the middle is seen
    assert torch.equal(other.images[:240], data.images[:240])
    assert (other.images[240:, 0, 40:72, 40:72] > 200).all()


def test_stir_has_a_digit_of_each_class_at_each_size(pool):
    data = load_source("stir_digits/middle")
    assert data.images.shape == (32 + 32 + 64, 1, 64, 64)
    assert (data.validation_from, data.test_from) == (32, 64)
    assert data.labels.bincount().tolist() == [64, 64]
    extent = (data.images[:, 0] > 127).any(1).sum(1).double()
    share = torch.tensor([8 / 28, 14 / 28], dtype=torch.float64)[data.labels]
    sides = extent / share
    assert 29 < sides[:64].min() < sides[:64].max() < 52
    assert ((sides[64:] < 37) | (sides[64:] > 45)).all()
    every = load_source("stir_digits/all")
    assert len(every.labels) == 3 * 96
    # A size's image is the same whatever is trained on.
    assert torch.equal(every.images[16], data.images[0])
    positions = {tuple(map(float, torch.nonzero(i[0] > 127)[0])) for i in data.images}
    assert len(positions) > 30


def test_refusals(pool, monkeypatch):
    with pytest.raises(InputError, match="takes one of small, middle, large, all.*got 'tiny'"):
        load_source("stir_digits/tiny")
    with pytest.raises(InputError, match="takes one of small, middle, large, all.*got ''"):
        load_source("stir_digits/")
    for name in ("3-1", "1-3", "1", ""):
        with pytest.raises(InputError, match="such as mnist_large_scale/1-4, got"):
            load_source(f"mnist_large_scale/{name}")
    few = LabelledImages(
        square()[None].repeat(4, 1, 1, 1), torch.tensor([0, 1, 0, 1]), ("0", "1"), 2
    )
    monkeypatch.setattr(stir, "idx_source", lambda kind: lambda root: few)
    with pytest.raises(InputError, match="need 48 digits of each class, class 0 has 1"):
        load_source("stir_digits/all")
