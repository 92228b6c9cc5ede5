"""ONNX files are tried in a process of their own first: native code that hangs or crashes ends only that."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nearfar.errors import InputError
from nearfar.records import short_repr

__all__ = ["check_onnx"]

#: Seconds that opening may take, and more for each MB of the file.
_SECONDS, _SECONDS_PER_MB = 9.0, 0.5
#: Bytes of memory that opening may take, and more for each byte of the file.
_MEMORY, _MEMORY_SHARE = 8 * 2**30, 16
_SETTING = "NEARFAR_OPEN_SECONDS"

_OPEN = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
except (ImportError, ValueError, OSError):
    pass
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 4
try:
    session = onnxruntime.InferenceSession(
        sys.argv[1], options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    (image,) = session.get_inputs()
    kinds = {"tensor(float)": "f4", "tensor(float16)": "f2", "tensor(double)": "f8", "tensor(uint8)": "u1"}
    sizes = [n if isinstance(n, int) and n > 0 else d for n, d in zip(image.shape, (1, 3, 64, 64))]
    session.run(None, {image.name: numpy.zeros(sizes, kinds[image.type])})
except Exception:
    pass  # said where it is opened again
"""


def check_onnx(path: Path) -> None:
    """Refuses a file that lets onnxruntime hang, crash or fill the memory, or that names files elsewhere.

    Args:
        path: the file. One that was checked before and has not changed is not opened again.

    Raises:
        InputError: it does.
    """
    state = path.stat()
    _check(path.absolute(), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _check(path: Path, size: int, _changed: int) -> None:
    _check_external_data(path)
    limit = float(os.environ.get(_SETTING) or _SECONDS + _SECONDS_PER_MB * size / 2**20)
    command = [sys.executable, "-P", "-c", _OPEN, str(path), str(_MEMORY + _MEMORY_SHARE * size)]
    try:
        status = subprocess.run(command, timeout=limit, capture_output=True, check=False).returncode  # noqa: S603
    except subprocess.TimeoutExpired as cause:
        raise InputError(
            f"{path} was not opened and asked by onnxruntime within {limit:g} s; export it again, or, where "
            f"the machine is slow, allow more with the environment variable {_SETTING}"
        ) from cause
    if status < 0:
        raise InputError(
            f"{path} makes onnxruntime crash (signal {-status}) when it is opened; export it again"
        )


def _check_external_data(path: Path) -> None:
    """Tensors may lie in files beside an ONNX file, not elsewhere."""
    try:
        import onnx
    except ImportError:  # onnxruntime looks after that too
        return
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception:  # said by onnxruntime where it is opened
        return
    for tensor in _tensors(model.graph):
        for entry in tensor.external_data:
            if entry.key == "location" and not _is_plain(entry.value):
                raise InputError(
                    f"{path} keeps tensors in {short_repr(entry.value)}, and they are read from its own "
                    f"folder alone; save it as one file"
                )


def _is_plain(location: str) -> bool:
    """Whether it names a file in the same folder."""
    return location not in ("", ".", "..") and not set(location) & {"/", "\\", ":", "\0"}


def _tensors(graph: Any) -> Iterator[Any]:
    """All tensors in a graph and in those within it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
