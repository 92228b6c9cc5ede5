"""Does the octave set lose accuracy against the paper's six scales? ``python -m benchmarks.scale_sets``.

The quickstart's SI-net with each set, three seeds, everything else alike. Writes
results/scale_sets.json; about two minutes.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from nearfar.atomic import write_atomically
from nearfar.auditing import AuditSpec, audit
from nearfar.experiments.quickstart import quickstart_specs
from nearfar.provenance import machine, today
from nearfar.training import ModelSpec, train

SEEDS = (0, 1, 2)
SETS = ("octave", "six")
RESULTS = Path(__file__).parent.parent / "results"


def main() -> None:
    """Trains, audits and writes the accuracies of every run."""
    data, fit = quickstart_specs()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in SEEDS:
            for name in SETS:
                out = Path(scratch) / f"{name}{seed}"
                train(ModelSpec("si_cnn_small", {"scales": name}), data, fit, seed=seed, out=out)
                curve = audit(out / "weights.safetensors", spec=AuditSpec(flips=0)).only.curve
                accuracy = curve.as_dict()["accuracy"]
                rows.append({"set": name, "seed": seed, "accuracy": accuracy})
                print(name, seed, {s: round(100 * a) for s, a in accuracy.items()}, flush=True)
    means = {
        name: {
            s: round(mean(row["accuracy"][s] for row in rows if row["set"] == name), 4)
            for s in rows[0]["accuracy"]
        }
        for name in SETS
    }
    record = {
        "schema": "nearfar.scale_sets/1",
        "command": "python -m benchmarks.scale_sets",
        "seeds": SEEDS,
        "machine": machine(),
        "torch": torch.__version__,
        "date": today(),
        "mean": means,
        "rows": rows,
    }
    write_atomically(RESULTS / "scale_sets.json", json.dumps(record, indent=1) + "\n")
    for name in SETS:
        print("mean", name, {s: f"{100 * a:.1f}" for s, a in means[name].items()})


if __name__ == "__main__":
    main()
