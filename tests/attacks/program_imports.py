"""Tries to import a module that the structure of a program's outputs names.

Stopped by the same look: structures that name modules are refused.
"""

import io
import zipfile

import whole_files

SAYS = "names a module to import"


def attack(folder):
    path = folder / "net.pt2"
    with (
        zipfile.ZipFile(io.BytesIO(whole_files.exported(".pt2"))) as source,
        zipfile.ZipFile(path, "w") as target,
    ):
        for info in source.infolist():
            content = source.read(info)
            if info.filename.endswith("models/model.json"):
                content = content[:-1] + b', "x": "default_factory_module"}'
            target.writestr(info.filename, content)

    picture = folder / "photo.png"
    picture.write_bytes(whole_files.png(whole_files.photo()))
    return ["predict", path, picture]
