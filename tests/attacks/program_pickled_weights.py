"""Tries to run a command by a pickled weight, for which torch's reader does not ask for tensors alone.

Stopped by the same look: archives that hold pickled tensors are refused.
"""

import io
import os
import pickle
import zipfile

import whole_files


class Command:
    def __reduce__(self):
        return os.system, ("touch owned",)


SAYS = "it holds pickled tensors"


def attack(folder):
    path = folder / "net.pt2"
    with (
        zipfile.ZipFile(io.BytesIO(whole_files.exported(".pt2"))) as source,
        zipfile.ZipFile(path, "w") as target,
    ):
        for info in source.infolist():
            content = source.read(info)
            if info.filename.endswith("weights_config.json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
            if info.filename.endswith("weights/weight_0"):
                content = pickle.dumps(Command())
            target.writestr(info.filename, content)

    picture = folder / "photo.png"
    picture.write_bytes(whole_files.png(whole_files.photo()))
    return ["predict", path, picture]
