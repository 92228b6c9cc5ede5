"""Tries to run a command by a program's sample inputs: torch asks for tensors alone, then again for anything.

Stopped by a setting of torch while it reads: tensors alone, whatever its readers ask for.
"""

import io
import os
import zipfile

import torch
import whole_files


class Command:
    def __reduce__(self):
        return os.system, ("touch owned",)


SAYS = "cannot be read as a program"


def attack(folder):
    path = folder / "net.pt2"
    with (
        zipfile.ZipFile(io.BytesIO(whole_files.exported(".pt2"))) as source,
        zipfile.ZipFile(path, "w") as target,
    ):
        for info in source.infolist():
            content = source.read(info)
            if "sample_inputs" in info.filename:
                buffer = io.BytesIO()
                torch.save(Command(), buffer)
                content = buffer.getvalue()
            target.writestr(info.filename, content)

    picture = folder / "photo.png"
    picture.write_bytes(whole_files.png(whole_files.photo()))
    return ["predict", path, picture]
