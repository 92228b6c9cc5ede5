"""How far a network can be known at every size, and for how much: ``python -m benchmarks.north_star``.

The bound is a *specialist*: the public ResNet-20 (``pretrained/resnet20-cifar10-12fca82f.th`` below
``$NEARFAR_DATA``), fine-tuned on 5,000 images of CIFAR-10, all shown at one size (to a thousandth). The
*rival* is the same training with images at 0.4 to 2 times their size. Beside them: the rival as a pyramid
ensemble of fixed scales, wrapped within budgets of 1.3 and 2, and what people do today
(``benchmarks/wrapping.py``). All have the same number of epochs (``--epochs``) and one seed (``--seed``);
all are audited on the same images of the official test part, of which wrappers were chosen on others.
Writes results/north_star.json, a row an entry as it comes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.conversion import MEAN, ROOT, STD, weights
from benchmarks.wrapping import enlarged, multi_scale_average, parted_test_images
from nearfar.atomic import write_atomically
from nearfar.auditing import AuditSpec, audit
from nearfar.classifiers import Classifier, InputOptions, load_classifier
from nearfar.conversion import PyramidEnsemble, convert_network
from nearfar.data import DataSpec, LabelledImages, Normalisation, Normalised, ScaleProtocol
from nearfar.deploy import FinetuneSpec, WrapSpec, wrap
from nearfar.provenance import machine, today
from nearfar.training import FitSpec, ModelSpec, train
from nearfar.version import versions

#: At which sizes there is a specialist.
SIZES = (0.5, 0.6, 0.75, 1.25, 1.5, 2.0)
SCALES = (0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)
FAR_AND_NEAR = (0.4, 0.5, 0.6, 1.5, 2.0)
FIT = FinetuneSpec().fit


def fine_tuned(sizes: tuple[float, float], epochs: int, seed: int, out: Path, count: int) -> Path:
    """The public network trained on, each image shown at a size between two."""
    spec = ModelSpec("resnet20_cifar", weights=str(weights()), mean=MEAN, std=STD)
    data = DataSpec(
        "cifar10",
        protocol=ScaleProtocol(canvas=32, content=32),
        train=count,
        validation=500,
        split="official",
        augment="crop_flip",
        random_scale=sizes,
    )
    fit = FitSpec(epochs, FIT.batch_size, FIT.lr, keep="last")
    train(spec, data, fit, seed=seed, out=out)
    return out / "weights.safetensors"


def ensemble(classifier: Classifier, method: PyramidEnsemble) -> Classifier:
    """A classifier as a pyramid ensemble of settings of one's own."""
    module = classifier.module
    assert isinstance(module, Normalised), "these networks are normalised"
    twin, _ = convert_network(module.network, method, 32)
    whole = Normalised(twin, Normalisation(MEAN, STD))
    return Classifier(classifier.input_spec, whole, whole)


class Table:
    """Rows as they come, on one set of images."""

    def __init__(self, images: LabelledImages, head: dict[str, Any], out: Path | None) -> None:
        self.images, self.head, self.out = images, head, out
        self.rows: dict[str, Any] = {}
        self.right: dict[str, torch.Tensor] = {}

    def add(self, name: str, model: Classifier, cost: float | None, **more: Any) -> None:
        """Audits a model, and writes the table anew."""
        result = audit({"model": model}, self.images, AuditSpec(scales=SCALES, flips=0))
        curve = result.results["model"].curve
        self.right[name] = torch.stack([curve.right(s) for s in FAR_AND_NEAR]).double().mean(0)
        row = {
            "accuracy": {f"{s:g}": curve.accuracy(s) for s in SCALES},
            "interval": {f"{s:g}": list(curve.interval(s)) for s in SCALES},
            "far_and_near": float(self.right[name].mean()),
            "cost": cost,
            **more,
        }
        if "rival" in self.right:
            ahead = self.right[name] - self.right["rival"]
            row["against_rival"] = [
                float(ahead.mean()),
                1.96 * float(ahead.std()) / len(ahead) ** 0.5,
            ]
        self.rows[name] = row
        print(name, {k: round(100 * v, 1) for k, v in row["accuracy"].items()}, cost, flush=True)
        if self.out is not None:
            write_atomically(
                self.out, json.dumps({**self.head, "rows": self.rows}, indent=1) + "\n"
            )


def main() -> None:
    """Trains, wraps, audits, writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=5000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--short", action="store_true", help="a smoke run that writes nothing")
    options = parser.parse_args()
    if options.short:
        options.epochs, options.train, options.test = 1, 200, 60
    work = ROOT / "runs" / f"north_star-{options.epochs}-{options.train}-{options.seed}"
    choose_on, held_out = parted_test_images("cifar10", 40 if options.short else 1000, options.test)
    head = {
        "schema": "nearfar.north_star/1",
        "command": f"NEARFAR_DATA=… python -m benchmarks.north_star --epochs {options.epochs} --seed "
        f"{options.seed} --train {options.train} --test {options.test}",
        "machine": machine(),
        "date": today(),
        "versions": versions(),
        "epochs": options.epochs,
        "train_images": options.train,
        "test_images": options.test,
        "seed": options.seed,
    }
    table = Table(held_out, head, None if options.short else ROOT / "results" / "north_star.json")
    original = load_classifier(f"resnet20_cifar@{weights()}", MEAN, STD)
    table.add("original", original, 1.0)
    budget = (options.epochs, options.seed)
    rival = load_classifier(fine_tuned((0.4, 2.0), *budget, work / "rival", options.train))
    table.add("rival", rival, 1.0)
    fixed = ensemble(rival, PyramidEnsemble())
    table.add("rival, pyramid ensemble of 0.6, 1, 1.68", fixed, 2.38)
    for name, model in (("original", original), ("rival", rival)):
        for limit in (1.3, 2.0):
            spec = WrapSpec(sizes=SCALES, choose_on=10**6, check=300)
            result = wrap(model, choose_on, limit, spec=spec, inputs=InputOptions(), out=None)
            settings = {"settings": result.plan.conversion.as_dict()}
            table.add(f"{name}, wrapped for {limit:g}", result.classifier, result.cost, **settings)
    for name, (model, cost) in practice(rival).items():
        table.add(f"rival, {name}", model, cost)
    for size in SIZES:
        path = fine_tuned(
            (0.999 * size, 1.001 * size), *budget, work / f"specialist-{size:g}", options.train
        )
        table.add(f"specialist at {size:g}", load_classifier(path), 1.0)


def practice(model: Classifier) -> dict[str, tuple[Classifier, float]]:
    """What people do today with a trained network."""
    assert isinstance(model.module, nn.Module), "these are networks"
    return {
        "ttach over 0.5, 1, 2 (nearest)": (multi_scale_average(model, (0.5, 1.0, 2.0)), 5.25),
        "ttach over 0.75, 1, 1.25 (nearest)": (
            multi_scale_average(model, (0.75, 1.0, 1.25)),
            3.125,
        ),
        "input enlarged 1.5 times": (enlarged(model, 1.5), 2.25),
    }


if __name__ == "__main__":
    main()
