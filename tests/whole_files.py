"""Whole files of the kinds that nearfar reads, for tests that damage them or hand over hostile ones."""

from __future__ import annotations

import functools
import io
import json
import os
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import nearfar
from nearfar.data import DataSpec, ScaleProtocol
from nearfar.training import FitSpec, ModelSpec, Recipe, TrainerSpec
from nearfar.training.checkpoint import save_checkpoint

NETWORK = "cnn_small"


def photo(width=23, height=17, mode="RGB"):
    """A noisy picture."""
    values = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype("<u2") * 257)
    return Image.fromarray(values, "RGBA").convert(mode)


def png(picture):
    """A picture's bytes."""
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def archive(members):
    """A tar file's bytes of names and contents."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as target:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))
    return out.getvalue()


@functools.cache
def checkpoint():
    """A checkpoint's bytes: a network of three classes, 16 grey pixels square."""
    protocol = ScaleProtocol(16, 12)
    data = DataSpec("digits", protocol=protocol, train=20, validation=10, test=10)
    recipe = Recipe(ModelSpec(NETWORK), data.explicit(), FitSpec(), 0, TrainerSpec())
    record = {
        "recipe": recipe.as_dict(),
        "in_chans": 1,
        "class_names": list("abc"),
        "normalisation": {"mean": [0.5], "std": [0.2]},
        "colours": None,
        "edition": "",
        "best_epoch": 3,
        "data": {"images": 40, "sha256": "0" * 64},
        "validation_loss": 0.5,
        "validation_accuracy": 0.75,
        "nearfar": "0",
        "torch": "2",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_checkpoint(path, nearfar.create_model(NETWORK, num_classes=3, in_chans=1), record)
        return path.read_bytes()


def changed_checkpoint(change):
    """The same with a record that ``change(record)`` has changed, or its text where that returns one."""
    content = checkpoint()
    size = struct.unpack("<Q", content[:8])[0]
    head, tensors = json.loads(content[8 : 8 + size]), content[8 + size :]
    record = json.loads(head["__metadata__"]["nearfar"])
    text = change(record)
    head["__metadata__"]["nearfar"] = text if isinstance(text, str) else json.dumps(record)
    head_text = json.dumps(head).encode()
    return struct.pack("<Q", len(head_text)) + head_text + tensors


@functools.cache
def classifier():
    """A small network that answers at once."""
    return nearfar.load_classifier(NETWORK, size=16, num_classes=3)


@functools.cache
def exported(ending):
    """An exported network's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        return nearfar.export(classifier(), Path(folder) / f"x{ending}").path.read_bytes()


def state_dict():
    """A network's tensors."""
    torch.manual_seed(0)
    return nearfar.create_model(NETWORK, num_classes=10, in_chans=1).state_dict()


def rezipped(change, more=(), folder=None):
    """An exported program whose members ``change(name, content)`` has changed, and more of them.

    Args:
        change: name within the program and content → content.
        more: names within the program, each with its content.
        folder: name of the archive's own folder; default: what it was.
    """
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(exported(".pt2"))) as source,
        zipfile.ZipFile(out, "w") as target,
    ):
        for info in source.infolist():
            root, _, name = info.filename.partition("/")
            root = folder or root
            target.writestr(f"{root}/{name}", change(name, source.read(info)))
        for name, content in more:
            target.writestr(f"{root}/{name}", content)
    return out.getvalue()


class Command:
    """What a pickle holds that runs a command when it is read."""

    def __reduce__(self):
        return os.system, ("touch owned",)


def predict(folder, word, *options):
    """The command that asks what is handed over about a photograph beside it."""
    picture = folder / "photo.png"
    picture.write_bytes(png(photo()))
    return ["predict", word, picture, *options]


def audit(path, source="stream_tar"):
    """The command that audits a network on an archive handed over."""
    network = ["cnn_small", "--size", "16", "--num_classes", "2"]
    return ["audit", *network, "--data", source, "--root", path]
