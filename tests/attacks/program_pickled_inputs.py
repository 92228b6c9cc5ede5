"""Tries to run a command by a program's sample inputs: torch asks for tensors alone, then again for anything.

Stopped by a setting of torch while it reads: tensors alone, whatever its readers ask for.
"""

import io

import torch
import whole_files

SAYS = "cannot be read as a program"


def change(name, content):
    if "sample_inputs" in name:
        buffer = io.BytesIO()
        torch.save(whole_files.Command(), buffer)
        content = buffer.getvalue()
    return content


def attack(folder):
    path = folder / "net.pt2"
    path.write_bytes(whole_files.rezipped(change))
    return whole_files.predict(folder, path)
