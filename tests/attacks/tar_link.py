"""Tries to read a file outside an archive by a link in it.

Stopped by refusing archives with links.
"""

import io
import tarfile

import whole_files

SAYS = "is a link"


def attack(folder):
    path = folder / "images.tar"
    buffer = io.BytesIO(whole_files.archive([("cat/a.png", whole_files.png(whole_files.photo()))]))
    with tarfile.open(fileobj=buffer, mode="a") as target:
        info = tarfile.TarInfo("dog/b.png")
        info.type, info.linkname = tarfile.SYMTYPE, "../../elsewhere/secret"
        target.addfile(info)
    path.write_bytes(buffer.getvalue())
    return whole_files.audit(path)
