"""How much memory a runtime needs: ``python -m nearfar.deploy.runtime_memory JOB``, one runtime a process.

Prints the bytes by which the process's peak grew while a model was opened and answered one batch. A process
of its own, because memory that one runtime has given back is used again by the next.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import torch

from nearfar.classifiers import load_classifier
from nearfar.deploy.runtimes import RUNTIMES

__all__: list[str] = []


def _peak() -> int:
    """Most bytes that this process has had in memory."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss begins at what the parent process had
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size


def _measure(job: dict[str, object]) -> int:
    for package in ("onnxruntime", "openvino", "onnx"):
        if importlib.util.find_spec(package):
            importlib.import_module(package)
    before = _peak()
    classifier = load_classifier(**job["open"])  # type: ignore[arg-type]
    answer, _ = RUNTIMES[str(job["runtime"])].prepare(classifier, Path(str(job["folder"])))
    answer(torch.rand(*job["shape"]))  # type: ignore[misc]
    return _peak() - before


if __name__ == "__main__":
    sys.stdout.write(f"{_measure(json.loads(sys.argv[1]))}\n")
