"""Tries to run a command by an object among a program's constants.

Stopped by the same look: archives that hold objects are refused.
"""

import io
import os
import pickle
import zipfile

import whole_files


class Command:
    def __reduce__(self):
        return os.system, ("touch owned",)


SAYS = "it holds the pickled object"


def attack(folder):
    path = folder / "net.pt2"
    with (
        zipfile.ZipFile(io.BytesIO(whole_files.exported(".pt2"))) as source,
        zipfile.ZipFile(path, "w") as target,
    ):
        for info in source.infolist():
            content = source.read(info)
            target.writestr(info.filename, content)
        target.writestr("x/data/constants/custom_obj_0", pickle.dumps(Command()))

    picture = folder / "photo.png"
    picture.write_bytes(whole_files.png(whole_files.photo()))
    return ["predict", path, picture]
