"""Tries to import a module of a record's choice, as a conversion method is imported on a command line.

Stopped by importing methods for words that a person has typed alone.
"""

import whole_files

SAYS = "method must be one of"


def change(record):
    record["recipe"]["model"]["convert"] = {"method": "owned:Method"}


def attack(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(whole_files.changed_checkpoint(change))
    return whole_files.predict(folder, path)
