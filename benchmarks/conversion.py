"""What converting a trained network gains: ``python -m benchmarks.conversion`` (about 40 minutes).

A ResNet-20 that somebody else trained on CIFAR-10 (``pretrained/resnet20-cifar10-12fca82f.th`` below
``$NEARFAR_DATA``), converted in each way with ``nearfar convert … --recalibrate --finetune`` on 5,000
training images, two at a time on one thread each (576 to 678 seconds on 2026-11-21); and the honest rival:
the same training of the plain network, with the same augmentation and no conversion. That is the very network
which the pyramid ensemble puts over its scales, so it is not trained again. All are audited on the same test
images. Writes results/conversion.json and docs/conversion.png. ``--short`` is a smoke run that writes
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from nearfar.atomic import write_atomically
from nearfar.auditing import AuditSpec
from nearfar.auditing.audit import audit
from nearfar.auditing.intervals import paired_difference
from nearfar.auditing.plots import plot_curves
from nearfar.auditing.report import figure_bytes
from nearfar.data import DataSpec, ScaleDataModule
from nearfar.deploy.convert import SCALES
from nearfar.provenance import machine, today
from nearfar.version import versions

ROOT = Path(__file__).parent.parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: The scales whose average counts.
FAR_AND_NEAR = (0.4, 0.5, 0.6, 1.5, 2.0)
#: Epochs that take about ten minutes of one thread here.
EPOCHS = {"pyramid-ensemble": 20, "si": 6, "wsms": 14, "antialias": 17}
TEST = 4000


def weights() -> Path:
    """The file of somebody else's weights."""
    return Path(os.environ["NEARFAR_DATA"]) / "pretrained" / "resnet20-cifar10-12fca82f.th"


def command(method: str, short: bool, work: Path) -> list[str]:
    """One conversion as a user would type it."""
    figures = [",".join(map(str, MEAN)), ",".join(map(str, STD))]
    command = f"nearfar convert resnet20_cifar@{weights()} {method} --mean {figures[0]} --std {figures[1]}"
    train, check, epochs = (200, 100, 1) if short else (5000, 1000, EPOCHS[method])
    command += (
        f" --data cifar10 --data.train {train} --data.validation 500 --data.augment crop_flip"
    )
    command += (
        f" --recalibrate --finetune --fit.epochs {epochs} --check {check} --out {work / method}"
    )
    return command.split()


def run(method: str, short: bool, work: Path) -> dict[str, Any]:
    """Converts in a process of its own, on one thread, and says how long that took."""
    words = command(method, short, work)
    program = Path(sys.executable).with_name("nearfar")
    start = time.monotonic()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 (our own words)
        [program, *words[1:]], env=env, capture_output=True, text=True
    )
    seconds = time.monotonic() - start
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    print(f"{method}: {seconds:.0f} s, exit status {done.returncode}", flush=True)
    masked = [w.replace(str(weights().parent.parent), "$NEARFAR_DATA") for w in words]
    masked = [w.replace(str(ROOT) + "/", "") for w in masked]
    return {"command": " ".join(masked), "seconds": round(seconds), "status": done.returncode}


def main() -> None:
    """Converts, audits, writes, draws."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true")
    short = parser.parse_args().short
    work = ROOT / "runs" / ("conversion-short" if short else "conversion")
    timings = work / "timings.json"
    runs: dict[str, Any] = json.loads(timings.read_text()) if timings.exists() else {}
    left = [method for method in EPOCHS if method not in runs]
    with ThreadPoolExecutor(2) as pool:
        for method, results in zip(
            left, pool.map(lambda m: run(m, short, work), left), strict=True
        ):
            runs[method] = results
            write_atomically(timings, json.dumps(runs))
    figures = {"mean": MEAN, "std": STD}
    from nearfar.classifiers import load_classifier

    models: dict[str, Any] = {
        "original": load_classifier(f"resnet20_cifar@{weights()}", **figures),
        "fine-tuned, scales augmented": work
        / "pyramid-ensemble"
        / "training"
        / "weights.safetensors",
        **{method: work / method / "weights.safetensors" for method in EPOCHS},
    }
    spec = DataSpec(
        "cifar10", split="official", train=5000, validation=500, test=100 if short else TEST
    )
    results = audit(models, ScaleDataModule(spec).stored("test"), AuditSpec(scales=SCALES, flips=0))
    curves = {name: result.curve for name, result in results.results.items()}
    rows = {}
    for name, curve in curves.items():
        own = torch.stack([curve.right(s) for s in FAR_AND_NEAR]).double().mean(0)
        theirs = torch.stack(
            [curves["fine-tuned, scales augmented"].right(s) for s in FAR_AND_NEAR]
        ).double()
        ahead = own - theirs.mean(0)
        half = 1.96 * float(ahead.std()) / len(ahead) ** 0.5
        cost = results.results[name].cost
        rows[name] = {
            **(runs.get(name) or {}),
            "parameters": cost and cost.parameters,
            "multiplications": cost and cost.multiplications,
            "accuracy": {f"{s:g}": curve.accuracy(s) for s in SCALES},
            "interval": {f"{s:g}": list(curve.interval(s)) for s in SCALES},
            "far_and_near": float(own.mean()),
            "against_rival": [float(ahead.mean()), half],
            "against_original_at_1": list(
                paired_difference(curve.right(1.0), curves["original"].right(1.0))
            ),
        }
        print(f"{name:30} far and near {100 * rows[name]['far_and_near']:.1f} %", flush=True)
    if short:
        return
    record = {
        "schema": "nearfar.conversion/1",
        "command": "NEARFAR_DATA=… python -m benchmarks.conversion",
        "machine": f"{machine()}; two conversions at a time on one thread each",
        "date": today(),
        "seed": 0,
        "versions": versions(),
        "test_images": TEST,
        "far_and_near": FAR_AND_NEAR,
        "rows": rows,
    }
    write_atomically(ROOT / "results" / "conversion.json", json.dumps(record, indent=1) + "\n")
    write_atomically(ROOT / "docs" / "conversion.png", figure_bytes(plot_curves(curves), "png"))


if __name__ == "__main__":
    main()
