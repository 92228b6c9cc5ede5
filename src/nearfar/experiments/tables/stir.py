"""``stir-digits``: one small net with every layer, trained on a band of sizes and tested on the others."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, get_args

from matplotlib.figure import Figure

from nearfar.auditing import AuditSpec, audit
from nearfar.auditing.plots import COLOURS
from nearfar.data import DataSpec, ScaleProtocol
from nearfar.data.sources.stir import BANDS
from nearfar.experiments.tables.table import Column, PaperFigure, Run, Table, TableRow, run_folder
from nearfar.models.scale_layer_digit import ScaleLayer5x5
from nearfar.progress import Progress
from nearfar.training import Checkpoint, FitSpec, ModelSpec, Recipe, TrainerSpec

__all__ = ["STIR_DIGITS"]

_SEEDS = (0, 1, 2)
_FIT = FitSpec(epochs=100, batch_size=32, lr=0.005)
#: The net's layers, and HierarchicalNet over the plain one: Jansson and Lindeberg's scale channels.
_NETS = {
    **{name: ModelSpec("scale_layer_digit", {"layer": name}) for name in get_args(ScaleLayer5x5)},
    "Gaussian pyramid, max": ModelSpec(
        "hierarchical_cnn_small", {"scales": [1.0, 0.71, 0.5, 0.35], "reduction": "max"}
    ),
}


def _runs(fast: bool) -> list[Run]:
    runs = []
    for row, model in _NETS.items():
        for band in BANDS:
            for seed in (0,) if fast else _SEEDS:
                data = DataSpec(
                    f"stir_digits/{band}",
                    split="official",
                    protocol=ScaleProtocol(canvas=64, content=64, test_scales=(1.0,)),
                    normalize="standard",
                )
                fit = FitSpec(epochs=1, batch_size=32, lr=0.005) if fast else _FIT
                recipe = Recipe(model, data.explicit(), fit, seed, TrainerSpec())
                runs.append(Run(row, recipe, run_folder("stir-digits", row, band, seed), band))
    return runs


def _measure(run: Run, trained: Checkpoint, progress: Progress) -> dict[str, Any]:
    curve = audit(
        trained.path, spec=AuditSpec(scales=(1.0,), flips=0), progress=progress
    ).only.curve
    accuracy = 100 * curve.accuracy(1.0)
    return {"accuracy": accuracy, run.part: accuracy}


def _picture(rows: Sequence[TableRow]) -> Figure:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    ax = figure.subplots()
    for i, row in enumerate(rows):
        means = [
            statistics.fmean(values) if (values := row.values(band)) else float("nan")
            for band in BANDS
        ]
        style = "o-" if i < len(COLOURS) else "s--"
        ax.plot(range(len(BANDS)), means, style, color=COLOURS[i % len(COLOURS)], label=row.name)
    words = [f"{name}\n{low}–{high} px" for name, (low, high) in BANDS.items()]
    ax.set_xticks(range(len(BANDS)), words)
    ax.set_xlabel("sizes trained on")
    ax.set_ylabel("right answers at the other sizes (%)")
    ax.set_ylim(0, 101)
    ax.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def _published(*means: float) -> dict[str, PaperFigure]:
    return {band: PaperFigure(mean) for band, mean in zip(BANDS, means, strict=True)}


STIR_DIGITS = Table(
    name="stir-digits",
    title="STIR's digits: trained on a band of sizes, tested on the others",
    source="T. Altstidl et al. 2023, digits, kernels of 7×7, the better rate, 25 to 50 seeds: means of the "
    "published results file",
    columns=[
        Column("accuracy", "all four (%)", 1, spread=False),
        *(Column(band, f"{band} (%)", 1) for band in BANDS),
    ],
    runs=_runs,
    measure=_measure,
    picture=_picture,
    paper={
        "standard": _published(63, 77, 69, 91),
        "si": _published(69, 83, 71, 93),
        "steerable": _published(75, 84, 80, 92),
        "disco": _published(78, 84, 79, 91),
        "Gaussian pyramid, max": _published(93, 91, 85, 95),
    },
    remarks=[
        "160 training images of 64×64 (all: 480), as many to validate, 320 (480) to test; ours are made by "
        "the published rules and are no copies. One net of three 5×5 layers for every row but the last, 100 "
        "epochs, the epoch with the smallest loss on the validation images; no augmentation.",
        "The published nets are others, with kernels of 7×7; their best on digits are a whole net over a "
        "Gaussian pyramid (the last row's rival) and SiConv2d with pixel pooling (89, 89, 83, 95 %).",
    ],
)
