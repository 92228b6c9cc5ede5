"""Tries to get a list in where a mapping is due, and so into code that does not expect it.

Stopped by a check of each value of a record by its field's type.
"""

import whole_files

SAYS = "must be a mapping of names to values"


def change(record):
    record["recipe"]["data"]["protocol"] = [1, 2, 3]


def attack(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(whole_files.changed_checkpoint(change))
    return whole_files.predict(folder, path)
