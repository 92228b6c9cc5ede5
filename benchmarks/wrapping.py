"""What a wrapper without training gains and costs: ``python -m benchmarks.wrapping``.

Networks that were trained already (the public ResNet-20 for CIFAR-10; what ``nearfar train`` made here, in
the files named with ``--nets``) are wrapped within budgets of 1.3 and 2, and held against the practice of
ttach, version 0.0.3: several scales, nearest-neighbour resizing, plain mean of the logits. All in one run on
the same held-out images. Writes results/wrapping.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.conversion import MEAN, ROOT, STD, weights
from nearfar.atomic import write_atomically
from nearfar.auditing import AuditSpec, audit
from nearfar.classifiers import Classifier, load_classifier
from nearfar.data import LabelledImages
from nearfar.data.image_dataset import take_images
from nearfar.data.sources import load_source
from nearfar.data.splits import stratified_order
from nearfar.deploy import WrapSpec, export, wrap
from nearfar.deploy.wrap_spec import SIZES
from nearfar.errors import InputError
from nearfar.provenance import machine, today
from nearfar.pyramid import expand
from nearfar.version import versions

BUDGETS = (1.3, 2.0)
SCALES_OF_PRACTICE = ((0.5, 1.0, 2.0), (0.75, 1.0, 1.25))


def parted_test_images(
    source: str, first: int, second: int, root: Path | None = None
) -> tuple[LabelledImages, LabelledImages]:
    """Two disjoint parts of a source's official test images, all classes in proportion.

    Wrappers put half of what they are handed aside to compare on, so the first part is twice as large.
    """
    loaded = load_source(source, root)
    pool = torch.arange(len(loaded.labels))[loaded.test_from or 0 :]
    order = pool[stratified_order(loaded.labels[pool])]
    ends = (order[: 2 * first], order[2 * first : 2 * first + second])
    parts = (
        LabelledImages(
            take_images(loaded.images, at), loaded.labels[at], loaded.class_names, test_from=0
        )
        for at in ends
    )
    return next(parts), next(parts)


class _Enlarged(nn.Module):
    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(expand(x, (self.factor,)).levels[0])
        return logits


def enlarged(model: Classifier, factor: float) -> Classifier:
    """A network fed its images larger, as who reads 'test at a higher resolution' does."""
    assert model.module is not None, "a network"
    whole = _Enlarged(model.module, factor)
    return Classifier(model.input_spec, whole, whole)


def multi_scale_average(model: Classifier, scales: tuple[float, ...]) -> Classifier:
    """The network within ttach's own wrapper, its defaults unchanged."""
    import ttach  # type: ignore[import-not-found, unused-ignore]

    assert model.module is not None, "a network"
    views = ttach.Compose([ttach.Scale(scales=list(scales))])
    whole: nn.Module = ttach.ClassificationTTAWrapper(model.module, views, merge_mode="mean")
    return Classifier(model.input_spec, whole, whole)


def row(
    name: str, model: Classifier, images: LabelledImages, before: Tensor | None
) -> dict[str, Any]:
    """Accuracy at every size, and the gain on the mean with its interval (images are paired)."""
    curve = audit({"m": model}, images, AuditSpec(scales=SIZES, flips=0)).results["m"].curve
    right = torch.stack([curve.right(s) for s in SIZES]).double().mean(0)
    figures: dict[str, Any] = {
        "name": name,
        "accuracy": {f"{s:g}": curve.accuracy(s) for s in SIZES},
        "mean": float(right.mean()),
        "right": right,
    }
    if before is not None:
        ahead = right - before
        half = 1.96 * float(ahead.std()) / len(ahead) ** 0.5
        figures["gain"] = [
            float(ahead.mean()),
            float(ahead.mean()) - half,
            float(ahead.mean()) + half,
        ]
    return figures


def rows_of(
    name: str, model: Classifier, source: str, root: Path | None, sizes: tuple[int, int]
) -> list[dict[str, Any]]:
    """One network: itself, wrapped, and as it is done today."""
    choose_on, held_out = parted_test_images(source, *sizes, root)
    plain = row(name, model, held_out, None)
    before = plain["right"]
    rows = [{**plain, "cost": 1.0}]
    for budget in BUDGETS:
        spec = WrapSpec(choose_on=10**6, check=300)
        result = wrap(model, choose_on, budget, spec=spec, out=None)
        figures = row(f"{name}, wrapped for {budget:g}", result.classifier, held_out, before)
        with tempfile.TemporaryDirectory() as folder:
            errors = {
                ending: export(result.classifier, Path(folder) / f"m.{ending}").error
                for ending in ("onnx", "pt2")
            }
        settings = result.plan.conversion.as_dict()
        rows.append({**figures, "cost": result.cost, "settings": settings, "export": errors})
    for scales in SCALES_OF_PRACTICE:
        listed = ", ".join(f"{s:g}" for s in scales)
        cost = sum(s * s for s in scales)
        try:
            figures = row(
                f"{name}, ttach over {listed}", multi_scale_average(model, scales), held_out, before
            )
        except InputError as refusal:
            figures = {
                "name": f"{name}, ttach over {listed}",
                "refused": str(refusal),
                "right": before,
            }
        rows.append({**figures, "cost": cost})
    return rows


def main() -> None:
    """Wraps, audits, writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nets", nargs="*", default=[], help="checkpoints, each with its own data")
    parser.add_argument("--choose", type=int, default=400)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--short", action="store_true", help="a smoke run that writes nothing")
    options = parser.parse_args()
    sizes = (30, 60) if options.short else (options.choose, options.test)
    public = load_classifier(f"resnet20_cifar@{weights()}", MEAN, STD)
    nets = [("public ResNet-20", public, "cifar10", None)]
    for word in options.nets:
        opened = load_classifier(word)
        assert opened.checkpoint is not None, "a checkpoint of nearfar's"
        data = opened.checkpoint.recipe.data
        spec = dataclasses.replace(opened.input_spec, name=opened.name)
        model = Classifier(spec, opened.function, opened.module)
        nets.append((f"{opened.name} ({data.source})", model, data.source, data.root))
    rows = []
    for name, model, source, root in nets:
        for figures in rows_of(name, model, source, root, sizes):
            figures.pop("right")
            print(json.dumps(figures), flush=True)
            rows.append(figures)
    if options.short:
        return
    record = {
        "schema": "nearfar.wrapping/1",
        "command": "NEARFAR_DATA=… python -m benchmarks.wrapping "
        f"--choose {options.choose} --test {options.test}"
        + (f" --nets {' '.join(options.nets)}" if options.nets else ""),
        "machine": machine(),
        "date": today(),
        "versions": versions(),
        "chosen_on": options.choose,
        "test_images": options.test,
        "rows": rows,
    }
    write_atomically(ROOT / "results" / "wrapping.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
