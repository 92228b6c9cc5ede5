"""The sample images that come with the package, for first tries and examples that run anywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from nearfar.data.decoding import decode
from nearfar.data.image_dataset import LabelledImages
from nearfar.data.image_files import image_files
from nearfar.data.sources.registry import register_source
from nearfar.errors import InputError
from nearfar.pretrained import list_samples, sample_folder

__all__: list[str] = []


def _sample_source(name: str) -> Callable[[Path | None], LabelledImages]:
    def load(root: Path | None) -> LabelledImages:
        """Images of the test part of a published data set, ten a class (Tiny ImageNet: one).

        Raises:
            InputError: a root, which these images do not have.
        """
        if root is not None:
            raise InputError(
                f"the images of {name} come with the package; leave root out, got {root}"
            )
        folder = sample_folder(name)
        classes = tuple((folder / "classes.txt").read_text(encoding="utf-8").splitlines())
        images, labels = [], []
        for label, class_name in enumerate(classes):
            for path in image_files(folder / class_name):
                images.append(decode(path))
                labels.append(label)
        pixels = torch.stack(images)
        is_grey = bool((pixels == pixels[:, :1]).all())
        return LabelledImages(pixels[:, :1] if is_grey else pixels, torch.tensor(labels), classes)

    return load


for _name in list_samples():
    register_source(_name)(_sample_source(_name))
