"""Folders of small images for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def noise(path: Path, seed: int, size: tuple[int, int] = (12, 12), **options: object) -> None:
    """An image file that no other is like."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def folder(root: Path, count: int = 12, parts: tuple[str, ...] = ("",)) -> Path:
    """``count`` images a part, of two classes in turn."""
    for p, part in enumerate(parts):
        for i in range(count):
            noise(root / part / ("cat", "dog")[i % 2] / f"{i:03}.png", 100 * p + i)
    return root
