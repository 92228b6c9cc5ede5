"""What an audit costs beside the forward passes that it cannot do without.

``python -m benchmarks.audit`` audits a CIFAR ResNet-20 on CIFAR-10's test images and, in turns with it, runs
the bare network on the same batches, rendered beforehand. The overhead is what rendering, reading the
predictions and the bootstrap of all figures take besides. The flip search and layer scores are left out:
they are more forward passes. Writes results/audit_overhead.json; ``--short`` is a smoke run that writes
nothing.

Expect at most 10 % on 2 cores, after about ten minutes. Needs ``$NEARFAR_DATA`` with ``cifar10``; weights are
random without ``--weights FILE``, which does not change the time.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import interleaved
from nearfar.atomic import write_atomically
from nearfar.auditing.audit_spec import AuditSpec, ImageSelection
from nearfar.auditing.audited_images import choose_images
from nearfar.auditing.audited_models import AuditedModel, open_models
from nearfar.auditing.axes import axis_of
from nearfar.auditing.predictions import predict_all
from nearfar.auditing.result import Audit, AuditResult
from nearfar.classifiers import InputOptions
from nearfar.provenance import machine, today
from nearfar.version import versions

RESULTS = Path(__file__).parent.parent / "results"
SCALES = (0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)
BATCH = 128
LIMIT = 0.10


def main() -> None:
    """Measures; writes unless it is a smoke run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a smoke run")
    parser.add_argument("--weights", help="of the ResNet-20")
    options = parser.parse_args()
    count, repeats = (256, 3) if options.short else (512, 5)
    model = "resnet20_cifar" + (f"@{options.weights}" if options.weights else "")
    audited_models = open_models(model, InputOptions((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    figures = measure(audited_models[0], count, repeats)
    print(
        f"bare {figures['bare_s']:.2f} s, audited {figures['audited_s']:.2f} s: overhead "
        f"{figures['overhead']:+.1%} (at most {LIMIT:.0%} wanted)"
    )
    if options.short:
        return
    command = "python -m benchmarks.audit" + (" --weights FILE" if options.weights else "")
    record = {
        "schema": "nearfar.audit_overhead/1",
        "command": command,
        "machine": machine(),
        "date": today(),
        **versions(),
        "model": "resnet20_cifar",
        "scales": SCALES,
        "batch": BATCH,
        **figures,
    }
    write_atomically(RESULTS / "audit_overhead.json", json.dumps(record, indent=1) + "\n")


def measure(model: AuditedModel, count: int, repeats: int) -> dict[str, Any]:
    """Median seconds of bare passes and of an audit over the same images, in turns."""
    images = choose_images("cifar10", [model], ImageSelection(count=count))
    module = model.classifier.module
    assert module is not None, "a network"
    module.eval()
    axis = axis_of(AuditSpec(scales=SCALES))
    points = axis.points([model], images)
    batches: list[Tensor] = [
        model.show(images.read(at), scale).contiguous(memory_format=torch.channels_last)
        for at in torch.split(torch.arange(len(images)), BATCH)
        for scale in SCALES
    ]

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                module(batch)

    def audited() -> None:
        curve = predict_all([model], images, axis, points, BATCH)[model.name]
        result = AuditResult("net", "cifar10", images.class_names, model.protocol, curve)
        Audit({"net": result}, "net", (), 0.05).as_dict()

    rounds = [interleaved([bare, audited], 1) for _ in range(repeats)]
    ratios = [after / before for before, after in rounds]
    return {
        "images": len(images),
        "repeats": repeats,
        "bare_s": statistics.median(before for before, _ in rounds),
        "audited_s": statistics.median(after for _, after in rounds),
        "overhead": statistics.median(ratios) - 1,
        "ratios": [round(ratio, 4) for ratio in ratios],
    }


if __name__ == "__main__":
    main()
