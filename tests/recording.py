"""What a classifier is fed, recorded; and what PIL makes of the same files."""

from __future__ import annotations

from PIL import Image

from nearfar.classifiers import Classifier, InputSpec


class Recorder:
    """A classifier that keeps what it is fed; its logits are pixel values."""

    def __init__(self, protocol, in_chans=3, names=("cat", "dog")):
        self.inputs = []
        self.classifier = Classifier(
            InputSpec("recorder", in_chans, protocol, len(names), names), self.logits
        )

    def logits(self, images):
        self.inputs += images.clone()
        return images.flatten(1)[:, -self.classifier.input_spec.num_classes :]


def files_of(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


def by_pil(path, transform):
    with Image.open(path) as image:
        return transform(image.convert("RGB"))


def as_set(images):
    """Images by all their bits."""
    return {(tuple(image.shape), image.contiguous().numpy().tobytes()) for image in images}
