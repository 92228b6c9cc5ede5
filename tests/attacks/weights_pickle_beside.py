"""Tries to run a command by an object that lies beside whole weights.

Stopped by the same reader: what is no tensor becomes a stand-in, and the weights are used without it.
"""

import subprocess

import torch
import whole_files

SAYS = "photo.png"
STATUS = 0


class Command:
    def __reduce__(self):
        return subprocess.call, (["touch", "owned"],)


def attack(folder):
    torch.save({"state_dict": whole_files.state_dict(), "args": Command()}, folder / "weights.pth")
    word = f"cnn_small@{folder / 'weights.pth'}"
    return whole_files.predict(folder, word, "--size", "16", "--num_classes", "10")
