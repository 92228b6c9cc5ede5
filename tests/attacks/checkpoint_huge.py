"""Tries to fill the memory: a small file that describes a network of billions of numbers.

Stopped by a limit on what building a network may ask for, by the size of the weights in the file.
"""

import whole_files

SAYS = "far larger than the file"


def change(record):
    record["in_chans"] = 10**9


def attack(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(whole_files.changed_checkpoint(change))
    return whole_files.predict(folder, path)
