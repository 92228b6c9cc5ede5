"""Classifiers and images whose audit is known beforehand."""

from __future__ import annotations

import torch

from nearfar.classifiers import Classifier, InputSpec
from nearfar.data import LabelledImages, ScaleProtocol

CANVAS, CONTENT = 48, 16


def coloured(count, classes=3, side=16):
    """Images of one colour each: the label is the channel that is brightest."""
    labels = torch.arange(count) % classes
    images = torch.full((count, 3, side, side), 60, dtype=torch.uint8)
    images[torch.arange(count), labels] = 200
    return LabelledImages(images, labels, tuple("abcdefgh"[:classes]), test_from=0)


def numbered(count, classes=3, side=16):
    """Images that say in red and green which they are; blue is 1 everywhere."""
    at = torch.arange(count)
    images = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    for channel, values in enumerate((at // 256, at % 256, torch.full_like(at, 255))):
        images[:, channel] = values.to(torch.uint8)[:, None, None]
    return LabelledImages(images, at % classes, tuple("abcdefgh"[:classes]), test_from=0)


def classifier(
    answer, classes=3, name="made", canvas=CANVAS, content=CONTENT, in_chans=3, **input_spec
):
    """A function from images to classes as a classifier; it is four times as sure as of any other."""

    def logits(images):
        return 4 * torch.nn.functional.one_hot(answer(images), classes).float()

    shown = ScaleProtocol(canvas, content, test_scales=(0.5, 0.75, 1.0, 1.5, 2.0))
    return Classifier(InputSpec(name, in_chans, shown, classes, **input_spec), logits)


def by_colour(images):
    """Right whatever the size."""
    return images.sum((2, 3)).argmax(1)


def size_seen(images):
    """The scale at which blue content is shown."""
    return images[:, 2].mean((1, 2)).sqrt() * images.shape[-1] / CONTENT


def number_seen(images):
    """Which of the numbered images it is."""
    middle = images[:, :, images.shape[-2] // 2, images.shape[-1] // 2] * 255
    return (middle[:, 0].round() * 256 + middle[:, 1].round()).long()
