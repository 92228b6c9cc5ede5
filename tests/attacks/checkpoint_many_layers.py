"""Tries to keep the machine busy: a small file that describes a network of millions of layers.

Stopped by the same limit, on the number of tensors.
"""

import whole_files

SAYS = "far larger than the file"


def change(record):
    model = {"name": "resnet18", "options": {"layers": [10**6] * 4}}
    record["recipe"]["model"] = {**record["recipe"]["model"], **model}


def attack(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(whole_files.changed_checkpoint(change))
    return whole_files.predict(folder, path)
