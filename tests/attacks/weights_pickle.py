"""Tries to run a command by a pickle that stands for weights, as `torch.load` would.

Stopped by reading pickles with `weights_only`: of other classes an empty stand-in is made, nothing is run.
"""

import os

import torch
import whole_files

SAYS = "cannot be read as weights alone|holds no|a whole"


class Command:
    def __reduce__(self):
        return os.system, ("touch owned",)


def attack(folder):
    torch.save(Command(), folder / "weights.pth")
    picture = folder / "photo.png"
    picture.write_bytes(whole_files.png(whole_files.photo()))
    words = ["predict", f"cnn_small@{folder / 'weights.pth'}", picture]
    return [*words, "--size", "16", "--num_classes", "10"]
