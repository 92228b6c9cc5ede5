"""Tries to make opening a checkpoint read another file.

Stopped by the same list.
"""

import whole_files

SAYS = "checkpoint_path"


def change(record):
    options = {"checkpoint_path": "elsewhere/secret"}
    record["recipe"]["model"] = {
        **record["recipe"]["model"],
        "name": "resnet18",
        "options": options,
    }


def attack(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(whole_files.changed_checkpoint(change))
    return whole_files.predict(folder, path)
