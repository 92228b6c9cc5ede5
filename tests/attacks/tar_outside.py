"""Tries to read files outside an archive by a name that leads out of it.

Stopped by refusing archives with such names; nothing is unpacked either.
"""

import whole_files

SAYS = "leads out of it|is a link"


def attack(folder):
    path = folder / "images.tar"
    pixels = whole_files.png(whole_files.photo())
    path.write_bytes(
        whole_files.archive([("cat/a.png", pixels), ("../elsewhere/secret.png", pixels)])
    )
    return whole_files.audit(path)
