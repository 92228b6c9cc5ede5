"""Tries to overflow the parser's stack: JSON nested 100,000 levels deep.

Stopped by the one reader of records, which bounds levels, numbers and values.
"""

import whole_files

SAYS = "nested too deep"


def change(record):
    return "[" * 100_000


def attack(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(whole_files.changed_checkpoint(change))
    return whole_files.predict(folder, path)
