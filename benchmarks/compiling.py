"""How long ``torch.compile`` takes over the operators and networks: ``python -m benchmarks.compiling``.

Seconds until the first step (forward and backward) of a size is done, each in a process of its own with an
empty cache of the compiler's; at a first size, and then at a second. Written to ``results/compiling.json``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch import nn

from nearfar.layers import PyramidConv2d, SIConv2d
from nearfar.models import create_model
from nearfar.provenance import machine, today

RESULTS = Path(__file__).parent.parent / "results" / "compiling.json"
NETWORKS = {
    "Conv2d": lambda: nn.Conv2d(16, 32, 3, padding=1),
    "SIConv2d": lambda: SIConv2d(16, 32, 3, padding=1),
    "PyramidConv2d": lambda: PyramidConv2d(16, 32, 3, padding=1),
    "resnet20_cifar": lambda: create_model("resnet20_cifar", in_chans=16),
    "wsms_resnet20_cifar": lambda: create_model("wsms_resnet20_cifar", in_chans=16),
}


def measure(name: str) -> dict[str, float]:
    """Seconds of the first and the second size, and the largest difference from the network as it is."""
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    compiled = torch.compile(network)
    # What a process compiles once, whatever the network.
    torch.compile(nn.Linear(2, 2))(torch.ones(1, 2)).sum().backward()
    seconds, error = [], 0.0
    for size in ((32, 32), (40, 28)):
        images = torch.randn(4, 16, *size)
        start = time.perf_counter()
        output = compiled(images)
        output.square().mean().backward()
        seconds.append(time.perf_counter() - start)
        error = max(error, float((output - network(images)).abs().max().detach()))
    return {"first": round(seconds[0], 2), "second": round(seconds[1], 2), "error": error}


def main() -> None:
    """Measures all, one process each, and writes the figures."""
    figures = {}
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(  # noqa: S603 (this file)
                [sys.executable, "-m", "benchmarks.compiling", name],
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
            )
        figures[name] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{name}: {figures[name]['first']:.1f} s, second size {figures[name]['second']:.1f} s"
        )
    result = {
        "command": "python -m benchmarks.compiling",
        "date": today(),
        "machine": machine(),
        "torch": torch.__version__,
        "seconds": figures,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:]:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
