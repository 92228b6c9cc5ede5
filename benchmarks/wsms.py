"""What WSMS adds to a training step: ``python -m benchmarks.wsms`` (about five minutes).

Forward and backward of WSMS-ResNet-110 over those of ResNet-110, batch 128 of 32×32, in turn, the median;
the papers' multiplications say 301 / 252 = 1.19. Writes results/wsms.json.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import nearfar
from benchmarks.timing import interleaved
from nearfar.atomic import write_atomically
from nearfar.provenance import today

RESULTS = Path(__file__).parent.parent / "results"
NAMES = ("resnet110_cifar", "wsms_resnet110_cifar", "ms_resnet110_cifar")
BATCH, REPEATS = 128, 11


def step(name: str) -> Callable[[], None]:
    """One forward and backward pass of a network in training."""
    torch.manual_seed(0)
    model = nearfar.create_model(name).to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH,))

    def run() -> None:
        nn.functional.cross_entropy(model(images), labels).backward()
        model.zero_grad()

    return run


def main() -> None:
    """Times and writes the ratios."""
    ratios = {}
    for threads in (torch.get_num_threads(), 1):
        torch.set_num_threads(threads)
        seconds = interleaved([step(name) for name in NAMES], REPEATS)
        ratios[str(threads)] = {
            name: round(seconds / seconds[0], 3)
            for name, seconds in zip(NAMES, seconds, strict=True)
        }
        print(f"{threads} threads: {ratios[str(threads)]}", flush=True)
    record = {
        "schema": "nearfar.wsms/1",
        "command": "python -m benchmarks.wsms",
        "machine": f"{platform.system()} {platform.machine()}, CPU",
        "torch": torch.__version__,
        "date": today(),
        "batch": BATCH,
        "ratio_by_threads": ratios,
    }
    write_atomically(RESULTS / "wsms.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
