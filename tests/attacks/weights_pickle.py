"""Tries to run a command by a pickle that stands for weights, as `torch.load` would.

Stopped by reading pickles with `weights_only`: of other classes an empty stand-in is made, nothing is run.
"""

import torch
import whole_files

SAYS = "cannot be read as weights alone|holds no|a whole"


def attack(folder):
    torch.save(whole_files.Command(), folder / "weights.pth")
    word = f"cnn_small@{folder / 'weights.pth'}"
    return whole_files.predict(folder, word, "--size", "16", "--num_classes", "10")
