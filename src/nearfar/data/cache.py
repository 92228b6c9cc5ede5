"""Tensors that are slow to make, kept on the disk with a checksum."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nearfar.atomic import write_atomically

__all__ = ["cache_folder", "cached_tensors", "checksum"]

_LOG = logging.getLogger(__name__)
_KEY = "sha256"


def cache_folder() -> Path:
    """Where nearfar keeps what it can make again: ``$NEARFAR_CACHE``, or ``~/.cache/nearfar``."""
    return Path(os.environ.get("NEARFAR_CACHE", Path.home() / ".cache" / "nearfar"))


def cached_tensors(
    name: str,
    make: Callable[[], Mapping[str, Tensor]],
    keep: Callable[[Mapping[str, Tensor]], bool] = lambda tensors: True,
) -> dict[str, Tensor]:
    """Tensors from the cache, or made and put there.

    A file whose content does not have the checksum it was written with is made anew. Where the
    cache cannot be written, and with ``NEARFAR_CACHE=off``, the tensors are made each time.

    Args:
        name: of the file, without its ending; names everything that the content depends on.
        make: makes the tensors.
        keep: whether the tensors that were made may be cached.
    """
    if os.environ.get("NEARFAR_CACHE") == "off":
        return dict(make())
    path = cache_folder() / f"{name}.safetensors"
    cached = _read(path)
    if cached is not None:
        return cached
    tensors = {key: value.contiguous() for key, value in make().items()}
    if not keep(tensors):
        return tensors
    try:
        write_atomically(path, save(tensors, metadata={_KEY: checksum(tensors)}))
    except (OSError, ValueError) as cause:
        _LOG.warning("%s cannot be kept, it is made anew each time: %s", path, cause)
    return tensors


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in the names' order."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().numpy().data.cast("B"))
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Tensor] | None:
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            stated = (file.metadata() or {}).get(_KEY)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as cause:
        _LOG.warning("%s cannot be read and is made anew: %s", path, cause)
        return None
    if stated != checksum(tensors):
        _LOG.warning("%s does not have its checksum and is made anew", path)
        return None
    return tensors
