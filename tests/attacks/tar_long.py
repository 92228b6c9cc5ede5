"""Tries to fill the memory: a member that is said to be 2^60 bytes long.

Stopped by comparing sizes with the archive's own.
"""

import whole_files

SAYS = "sparse or longer than the archive"


def attack(folder):
    path = folder / "images.tar"
    data = bytearray(whole_files.archive([("cat/a.png", whole_files.png(whole_files.photo()))]))
    head = data[:512]
    head[124:136] = b"\x80" + (2**60).to_bytes(11, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    data[:512] = head
    path.write_bytes(bytes(data))
    return whole_files.audit(path)
