"""Tries to run a command by the expression of a size, which torch's reader evaluates.

Stopped by a look through the archive before torch reads it: expressions are numbers, names and a list of
functions.
"""

import io
import re
import zipfile

import whole_files

COMMAND = b"__import__('os').system('touch owned')"
SAYS = "it has the size"


def attack(folder):
    path = folder / "net.pt2"
    with (
        zipfile.ZipFile(io.BytesIO(whole_files.exported(".pt2"))) as source,
        zipfile.ZipFile(path, "w") as target,
    ):
        for info in source.infolist():
            content = source.read(info)
            if info.filename.endswith("models/model.json"):
                content = re.sub(rb'("expr_str": ")[^"]*', rb"\1" + COMMAND, content)
            target.writestr(info.filename, content)

    picture = folder / "photo.png"
    picture.write_bytes(whole_files.png(whole_files.photo()))
    return ["predict", path, picture]
