"""``mnist-scale``: plain, hierarchical and SI twins on digits of many sizes, and our best net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from nearfar.auditing import AuditSpec, audit
from nearfar.data import DataSpec, mnist_scale
from nearfar.experiments.tables.pictures import plot_runs
from nearfar.experiments.tables.table import (
    Column,
    PaperFigure,
    Run,
    Table,
    TableRow,
    at_scales,
    run_folder,
)
from nearfar.progress import Progress
from nearfar.training import Checkpoint, FitSpec, ModelSpec, Recipe, TrainerSpec

__all__ = ["CLOSER", "MNIST_SCALE", "twin_runs"]

FOLDS = tuple(range(6))
#: The twins of the paper's table, all under one budget.
TWINS = {
    "plain": ModelSpec("cnn_mnist_scale"),
    "hierarchical": ModelSpec("hierarchical_mnist_scale"),
    "SI": ModelSpec("si_mnist_scale"),
}
_FIT = FitSpec(epochs=6, batch_size=64, lr=0.005)
_FULL, _HALF = TrainerSpec(), TrainerSpec(precision="bf16-mixed")

_ERROR = Column("error", "test errors (%)")


def twin_runs(fast: bool) -> list[Run]:
    """The twins' runs on every fold."""
    if fast:
        few = {"train": 256, "validation": 100, "test": 500}
        return [
            _run(row, model, mnist_scale(0, normalize="standard", **few), FitSpec(epochs=1))
            for row, model in TWINS.items()
        ]
    return [
        _run(row, model, mnist_scale(fold, normalize="standard"), _FIT)
        for row, model in TWINS.items()
        for fold in FOLDS
    ]


#: Three windows that lie closer together than the net's own four.
CLOSER = ModelSpec("zoom_digit", {"scales": [1.2, 1.6, 2.1], "drop_rate": 0.3})
#: The same, wide: 429,778 parameters.
WIDE = ModelSpec("zoom_digit", {**CLOSER.options, "channels": [24, 80, 80, 160, 160]})
_WARPED = {"rotate": 12.0, "shear": 8.5, "stretch": 1.1}
#: Our best net, and how each row trains it: the net, epochs, augmentation, precision.
BEST: dict[str, tuple[ModelSpec, int, dict[str, Any], TrainerSpec]] = {
    "zooming net": (ModelSpec("zoom_digit"), 12, {}, _FULL),
    "zooming net, scales augmented": (
        ModelSpec("zoom_digit"),
        16,
        {"random_scale": (0.8, 1.25)},
        _FULL,
    ),
    "zooming net, closer windows, warped": (CLOSER, 20, _WARPED, _FULL),
    "wide zooming net, warped, sizes exchanged": (
        WIDE,
        40,
        {**_WARPED, "exchange_sizes": (0.35, 2.0)},
        _HALF,
    ),
}


#: Scales that a row's nets look at once they are trained: more of them, and closer together.
#: Runs measured with others are not measured again unless the table's version changes.
_AT_TEST = {
    "wide zooming net, warped, sizes exchanged": [1.0, 1.13, 1.28, 1.45, 1.64, 1.86, 2.1],
}


def best_runs(fast: bool) -> list[Run]:
    """Our best net's runs on every fold."""
    runs = []
    for row, (model, epochs, augmented, trainer) in BEST.items():
        fit = FitSpec(epochs=1 if fast else epochs, batch_size=64, lr=0.004)
        for fold in FOLDS[:1] if fast else FOLDS:
            few = {"train": 256, "validation": 100, "test": 500} if fast else {}
            data = mnist_scale(fold, **augmented, **few)
            runs.append(_run(row, model, data, fit, trainer))
    return runs


def _run(
    row: str, model: ModelSpec, data: DataSpec, fit: FitSpec, trainer: TrainerSpec = _FULL
) -> Run:
    recipe = Recipe(model, data.explicit(), fit, data.split_seed, trainer)
    return Run(row, recipe, run_folder("mnist-scale", row, data.split_seed))


def _measure(run: Run, trained: Checkpoint, progress: Progress) -> dict[str, Any]:
    scales = _AT_TEST.get(run.row)
    with at_scales(trained, scales) as path:
        curve = audit(path, spec=AuditSpec(scales=(1.0,), flips=0), progress=progress).only.curve
    error = {"error": 100 * (1 - curve.accuracy(1.0))}
    return error if scales is None else {**error, "scales_at_test": scales}


def _picture(rows: Sequence[TableRow]) -> Figure:
    return plot_runs(
        rows,
        _ERROR,
        "test errors (%) on 50,000 images",
        "MNIST-Scale: a dot is a fold",
        marks=[(1.68, "SESN"), (1.35, "DISCO, scale augmentation")],
    )


MNIST_SCALE = Table(
    name="mnist-scale",
    title="Digits of many sizes (MNIST-Scale): errors on six folds",
    source="A. Akbari, Table III",
    columns=[_ERROR],
    runs=lambda fast: [*twin_runs(fast), *best_runs(fast)],
    measure=_measure,
    picture=_picture,
    paper={
        "plain": {"error": PaperFigure(3.48, 0.23)},
        "hierarchical": {"error": PaperFigure(3.58, 0.17)},
        "SI": {"error": PaperFigure(3.17, 0.19)},
    },
    remarks=[
        "The paper prints neither folds nor budget. Ours: the folds of `nearfar.data` (protocol of the later "
        "publications), AdamW with one cycle, batches of 64, the epoch with the smallest loss on the 2,000 "
        "validation images; no augmentation but where a row says so. Three twins: 6 epochs; zooming net: 12, "
        "with scales augmented (each image from 0.8 to 1.25 times its size) 16.",
        "The zooming net looks at the middle of the image through windows of 24 pixels at scales 1, 1.4, 2 "
        "and 2.8. The row with closer windows has them at 1.2, 1.6 and 2.1, and dropout of 0.3; it learns "
        "for 20 epochs from images that are turned by up to 12 degrees, slanted by up to 8.5 and made up "
        "to 1.1 times as wide and so much less high, or the other way round, but not rescaled. The wide "
        "net has more channels and learns in bfloat16 for 40 epochs, from images warped so, each of which "
        "is shown at the size of another one (`data.exchange_sizes`, 0.35 to 2 times its own at most). "
        "Once it is trained it looks through seven windows at 1 to 2.1 (`nearfar.training.with_options`), "
        "chosen on the validation images of folds 0 to 2; through its own three it has 1.39, 1.40 and 1.40 "
        "% test errors on these (results/trials.json). All else was chosen on the validation images of "
        "fold 0. Without exchanged sizes the wide net has 1.47 % test errors on fold 0, the narrow one "
        "1.43 %: it was not trained on the other folds (results/trials.json).",
        "Lowest published means that we know of: 1.68 % (SESN) without scale augmentation; 1.42 % (SESN) and "
        "1.35 % (DISCO) with it. The '56×56' of these is the 28×28 image enlarged twice inside the net "
        "(nearest pixel): four times the pixels, no more information, so that rows compare. InvarPDEs-Net "
        "(CVPR 2024, under 500,000 parameters) has 1.70 % without, on other files than SESN's protocol, of "
        "the same sizes: its code loads no validation part and tests the last epoch. "
        "The code that SESN and DISCO published rescales training images by 0.5 to 2 and warps none "
        "(ISosnovik/sesn and ISosnovik/disco, utils/loaders.py): beside them our warps are an advantage of "
        "the training, not of the net.",
        "The hierarchical net is far better than print, and ahead of the plain one where the paper has it "
        "behind. The paper lays its poor figure to overfitting; ours, with five times the plain net's "
        "weights, fits the training images less closely than that one (training loss of the last epoch 0.026 "
        "to 0.036, plain 0.011 to 0.015: `metrics.csv`): one cycle of 6 epochs ends before. The paper does "
        "not say what its hierarchical net was.",
        "The SI net is within two deviations of print, but behind the plain one, where the paper has it "
        "ahead. It learns more slowly (training loss of the last epoch 0.052 to 0.064), which is not all: "
        "after 12 epochs on fold 0 (`nearfar train --config recipes/si_mnist_scale.yaml --fit.epochs 12`, "
        "and `cnn_mnist_scale.yaml`) its validation loss is 0.073, plain 0.074, its errors 2.60 %, plain "
        "1.85 %.",
    ],
)
