"""Tries to fill the memory with names of classes: one image of class 99,999,999.

Stopped by a bound on classes' numbers.
"""

import whole_files

SAYS = "from 0 to 999999"


def attack(folder):
    path = folder / "images.tar"
    pixels = whole_files.png(whole_files.photo())
    path.write_bytes(whole_files.archive([("0.png", pixels), ("0.cls", b"99999999")]))
    return whole_files.audit(path, "stream_wds")
