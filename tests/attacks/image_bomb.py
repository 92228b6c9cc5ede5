"""Tries to fill the memory: a PNG file of some bytes that holds 60,000×60,000 pixels.

Stopped by a limit on pixels, looked at before they are decoded.
"""

import struct
import zlib

SAYS = "has 60000×60000 pixels|exceeds limit"


def attack(folder):
    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    path = folder / "photo.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    return ["predict", "cnn_small", path, "--size", "16", "--num_classes", "3"]
