"""Tries to write to the terminal (colours, its title, a fake prompt) by classes' names.

Stopped by showing control characters as what they are.
"""

import whole_files

SAYS = r"\\x1b\]0;owned|\\u001b"
STATUS = 0


def change(record):
    record["class_names"] = [f"\x1b]0;owned\x07\x1b[31m{name}\r\n$ " for name in "abc"]


def attack(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(whole_files.changed_checkpoint(change))
    return whole_files.predict(folder, path, "--format", "table")
