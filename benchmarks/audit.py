"""What an audit costs beside the forward passes that it cannot do without, on each of its axes.

``python -m benchmarks.audit`` audits a CIFAR ResNet-20 on CIFAR-10's test images and, in turns with it, runs
the bare network on the same batches, rendered beforehand. The overhead is what reducing files, rendering,
reading the predictions and the bootstrap of all figures take besides; medians of rounds. The flip search and
layer scores are left out: they are more forward passes. The axis ``stored`` is measured with JPEG files; on
the axis ``box`` things are parts of the images, and each is shown once, so that more of them are taken.
Memory is measured by auditing four times as many images in a process of its own: by how much its peak grows.
Writes results/audit_overhead.json; ``--short`` is a smoke run that writes nothing.

We want at most 10 %; ``stored`` and ``box`` take more so far. About twenty minutes on 2 busy cores.
Needs ``$NEARFAR_DATA`` with ``cifar10``; weights are random without ``--weights FILE``, which does not change
the time.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.timing import interleaved
from nearfar.atomic import write_atomically
from nearfar.auditing.advice import advise
from nearfar.auditing.audit_spec import AuditSpec, ImageSelection
from nearfar.auditing.audited_images import AuditedImages, choose_images
from nearfar.auditing.audited_models import AuditedModel, open_models
from nearfar.auditing.axes import AuditAxis, AuditPoints, axis_of
from nearfar.auditing.predictions import predict_all
from nearfar.auditing.result import Audit, AuditResult
from nearfar.classifiers import InputOptions
from nearfar.provenance import machine, today
from nearfar.version import versions

RESULTS = Path(__file__).parent.parent / "results"
BATCH = 128
LIMIT = 0.10
AXES = {
    "content": AuditSpec(scales=(0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)),
    "input": AuditSpec(axis="input", sides=(20, 24, 28, 32, 36, 40)),
    "stored": AuditSpec(axis="stored", sides=(8, 12, 16, 24), quality=75),
    "box": AuditSpec(axis="box", bins=8, crop=True),
}


def main() -> None:
    """Measures; writes unless it is a smoke run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a smoke run")
    parser.add_argument("--weights", help="of the ResNet-20")
    parser.add_argument("--memory", nargs=2, metavar=("AXIS", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    model = "resnet20_cifar" + (f"@{options.weights}" if options.weights else "")
    if options.memory:
        axis, count = options.memory
        audit_once(model, axis, int(count))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    count, repeats = (128, 2) if options.short else (512, 3)
    axes = {}
    for axis in AXES:
        many = count if axis != "box" else 4 * count
        figures = measure(open_net(model), axis, many, repeats)
        if not options.short:
            figures["peak_mib"] = {n: peak_memory(model, axis, n) for n in (500, 2000)}
        print(
            f"{axis}: bare {figures['bare_s']:.2f} s, audited {figures['audited_s']:.2f} s: overhead "
            f"{figures['overhead']:+.1%} (at most {LIMIT:.0%} wanted) {figures.get('peak_mib', '')}"
        )
        axes[axis] = figures
    if options.short:
        return
    command = "python -m benchmarks.audit" + (" --weights FILE" if options.weights else "")
    record = {
        "schema": "nearfar.audit_overhead/2",
        "command": command,
        "machine": machine(),
        "date": today(),
        **versions(),
        "model": "resnet20_cifar",
        "batch": BATCH,
        "axes": axes,
    }
    write_atomically(RESULTS / "audit_overhead.json", json.dumps(record, indent=1) + "\n")


def open_net(model: str) -> AuditedModel:
    """The network under audit, normalised as its weights want."""
    inputs = InputOptions((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return open_models(model, inputs)[0]


def prepared(
    model: AuditedModel, axis: str, count: int, folder: Path
) -> tuple[AuditAxis, AuditPoints, AuditedImages]:
    """An axis with its points and images; of ``box``, parts of images from a file of boxes."""
    spec = AXES[axis]
    along = axis_of(spec)
    plain = choose_images("cifar10", [model], ImageSelection(count=count))
    if axis != "box":
        return along, along.points([model], plain), plain
    for i in range(count):
        image = plain.read(torch.tensor([i]))[0]
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    lines = [f"{i}.png,{int(plain.labels[i])},2,3,{8 + i % 20},{10 + i % 18}" for i in range(count)]
    boxes = folder / "boxes.csv"
    boxes.write_text("\n".join(["path,label,x,y,w,h", *lines]) + "\n")
    images = along.choose(boxes, [model], ImageSelection())
    return along, along.points([model], images), images


def predict(
    model: AuditedModel, axis: AuditAxis, points: AuditPoints, images: AuditedImages
) -> Audit:
    """What an audit does: predictions, figures with their intervals, advice."""
    curve = predict_all([model], images, axis, points, BATCH)[model.name]
    result = AuditResult("net", images.source, images.class_names, model.protocol, curve)
    advice = advise({"net": result}, 0.05, points.bounds)
    audit = Audit({"net": result}, "net", (), 0.05, bounds=points.bounds, advice=advice)
    audit.as_dict()
    return audit


def measure(model: AuditedModel, axis: str, count: int, repeats: int) -> dict[str, Any]:
    """Median seconds of bare passes and of an audit over the same images, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        along, points, images = prepared(model, axis, count, Path(folder))
        batches: list[tuple[Any, Tensor]] = []
        for at in torch.split(torch.arange(len(images)), BATCH):
            for point in points.asked_at:
                batch = along.show(model, along.prepare(images.read(at), point), point)
                module = along.model_at(model, point).classifier.module
                assert module is not None, "a network"
                batches.append((module.eval(), batch.contiguous(memory_format=torch.channels_last)))

        def bare() -> None:
            with torch.inference_mode():
                for module, batch in batches:
                    module(batch)

        def audited() -> None:
            predict(model, along, points, images)

        rounds = [interleaved([bare, audited], 1) for _ in range(repeats)]
    ratios = [after / before for before, after in rounds]
    return {
        "points": points.values,
        "images": len(images),
        "repeats": repeats,
        "bare_s": statistics.median(before for before, _ in rounds),
        "audited_s": statistics.median(after for _, after in rounds),
        "overhead": statistics.median(ratios) - 1,
        "ratios": [round(ratio, 4) for ratio in ratios],
    }


def audit_once(model: str, axis: str, count: int) -> None:
    """One audit, for its memory; the images are decoded batch by batch."""
    with tempfile.TemporaryDirectory() as folder:
        opened = open_net(model)
        along, points, images = prepared(opened, axis, count, Path(folder))
        predict(opened, along, points, images)


def peak_memory(model: str, axis: str, count: int) -> int:
    """Most MiB that a process takes that audits so many images."""
    words = [sys.executable, "-m", "benchmarks.audit", "--memory", axis, str(count)]
    words += ["--weights", model.partition("@")[2]] if "@" in model else []
    done = subprocess.run(words, capture_output=True, text=True, check=True)  # noqa: S603 - ourselves
    return int(done.stdout.split()[-1]) // 1024


if __name__ == "__main__":
    main()
