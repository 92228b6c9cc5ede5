"""Tries to make opening a checkpoint fetch a file from an address in its record.

Stopped by a list of options that a record may not have: those that make a builder fetch or read.
"""

import whole_files

SAYS = "pretrained_cfg_overlay"


def change(record):
    options = {"pretrained": True, "pretrained_cfg_overlay": {"url": "http://127.0.0.1:9/x.pth"}}
    record["recipe"]["model"] = {
        **record["recipe"]["model"],
        "name": "resnet18",
        "options": options,
    }


def attack(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(whole_files.changed_checkpoint(change))
    return whole_files.predict(folder, path)
