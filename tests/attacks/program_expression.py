"""Tries to run a command by the expression of a size, which torch's reader evaluates.

Stopped by a look through the archive before torch reads it: expressions are numbers, names and a list of
functions.
"""

import re

import whole_files

COMMAND = b"__import__('os').system('touch owned')"
SAYS = "it has the size"


def change(name, content):
    if name.endswith("models/model.json"):
        content = re.sub(rb'("expr_str": ")[^"]*', rb"\1" + COMMAND, content)
    return content


def attack(folder):
    path = folder / "net.pt2"
    path.write_bytes(whole_files.rezipped(change))
    return whole_files.predict(folder, path)
