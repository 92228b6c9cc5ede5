"""Why a method helps or does not: one change at a time to the quickstart's nets.

    python -m benchmarks.why            writes results/why.json and results/why.md (about 8 minutes)

Every variant trains and is tested exactly as in ``nearfar quickstart`` (same images, budget, seed).
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from nearfar import pyramid
from nearfar.atomic import write_atomically
from nearfar.auditing import AuditSpec, audit
from nearfar.experiments.quickstart import quickstart_specs
from nearfar.models import SmallCNN
from nearfar.models.registry import register
from nearfar.provenance import machine, today
from nearfar.pyramid import collapse, expand
from nearfar.training import ModelSpec, train

SEED = 0
RESULTS = Path(__file__).parent.parent / "results"


class RawLogits(torch.nn.Module):
    """The hierarchical net with the levels' raw logits compared, not their log-probabilities."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.net = SmallCNN(**kwargs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return collapse(pyramid.map(self.net, expand(x, "octave")), "max")


@register()
def raw_logits_cnn_small(**kwargs: Any) -> RawLogits:
    """For this benchmark only."""
    return RawLogits(**kwargs)


#: question → variants: (what it is, model, its options, training scales)
VARIANTS: list[tuple[str, str, str, dict[str, Any], tuple[float, ...]]] = [
    ("vote", "hierarchical: sum of probabilities (default)", "hierarchical_cnn_small", {}, (1.0,)),
    (
        "vote",
        "hierarchical: product of probabilities",
        "hierarchical_cnn_small",
        {"reduction": "mean"},
        (1.0,),
    ),
    ("vote", "hierarchical: surest level", "hierarchical_cnn_small", {"reduction": "max"}, (1.0,)),
    ("vote", "hierarchical: largest raw logit", "raw_logits_cnn_small", {}, (1.0,)),
    ("norm", "plain with batch norm", "cnn_small", {"norm": True}, (1.0,)),
    ("norm", "si with batch norm", "si_cnn_small", {"norm": True}, (1.0,)),
    ("norm", "hierarchical with batch norm", "hierarchical_cnn_small", {"norm": True}, (1.0,)),
    ("reach", "plain (default)", "cnn_small", {}, (1.0,)),
    ("reach", "si: 0.5 to 2 (default)", "si_cnn_small", {}, (1.0,)),
    ("reach", "si: 0.75, 1, 1.33", "si_cnn_small", {"scales": [0.75, 1.0, 1.3333]}, (1.0,)),
    ("reach", "si: 1, 1.5, 2", "si_cnn_small", {"scales": [1.0, 1.5, 2.0]}, (1.0,)),
    ("reach", "si: 0.5, 0.75, 1", "si_cnn_small", {"scales": [0.5, 0.75, 1.0]}, (1.0,)),
    ("learning", "pyramid (default)", "pyramid_cnn_small", {}, (1.0,)),
    ("learning", "wsms (default)", "wsms_cnn_small", {}, (1.0,)),
    ("learning", "plain, trained at 0.5, 1 and 2", "cnn_small", {}, (0.5, 1.0, 2.0)),
    ("learning", "pyramid, trained at 0.5, 1 and 2", "pyramid_cnn_small", {}, (0.5, 1.0, 2.0)),
    ("learning", "wsms, trained at 0.5, 1 and 2", "wsms_cnn_small", {}, (0.5, 1.0, 2.0)),
]


def main() -> None:
    """Runs every variant and writes the table."""
    rows = []
    data, fit = quickstart_specs()
    with tempfile.TemporaryDirectory() as scratch:
        for i, (question, what, name, options, train_scales) in enumerate(VARIANTS):
            protocol = dataclasses.replace(data.protocol, train_scales=train_scales)
            out = Path(scratch) / str(i)
            train(
                ModelSpec(name, options),
                dataclasses.replace(data, protocol=protocol),
                fit,
                seed=SEED,
                out=out,
            )
            curve = audit(out / "weights.safetensors", spec=AuditSpec(flips=0)).only.curve
            rows.append({"question": question, "net": what, "model": name, **curve.as_dict()})
            print(what, {s: round(100 * a) for s, a in rows[-1]["accuracy"].items()}, flush=True)
    record = {
        "schema": "nearfar.why/1",
        "command": "python -m benchmarks.why",
        "seed": SEED,
        "machine": machine(),
        "torch": torch.__version__,
        "date": today(),
        "rows": rows,
    }
    write_atomically(RESULTS / "why.json", json.dumps(record, indent=1) + "\n")
    write_atomically(RESULTS / "why.md", table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """The accuracies in per cent as a Markdown table."""
    scales = list(rows[0]["accuracy"])
    lines = [
        f"| question | net | {' | '.join(f'{float(s):g}×' for s in scales)} |",
        f"| --- | --- |{' ---: |' * len(scales)}",
    ]
    for row in rows:
        values = " | ".join(f"{100 * row['accuracy'][s]:.0f}" for s in scales)
        lines.append(f"| {row['question']} | {row['net']} | {values} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
