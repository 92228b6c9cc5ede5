"""Tries the expression of a size again, in an archive whose own folder has the name of what is passed over.

Stopped by passing over what others put beside a program by its place in the archive alone, whatever the case
of names.
"""

import re

import whole_files

COMMAND = b"__import__('os').system('touch owned')"
SAYS = "it has the size"


def change(name, content):
    if name == "models/model.json":
        content = re.sub(rb'("expr_str": ")[^"]*', rb"\1" + COMMAND, content)
    return content


def attack(folder):
    path = folder / "net.pt2"
    path.write_bytes(whole_files.rezipped(change, folder="extra"))
    return whole_files.predict(folder, path)
