"""``cifar``: ResNet-20 plain, multi-stage, and weight-shared multi-stage, under one short budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from nearfar.auditing import AuditSpec, audit
from nearfar.data import DataSpec, ScaleProtocol
from nearfar.experiments.tables.pictures import plot_runs
from nearfar.experiments.tables.table import Column, Run, Table, TableRow, run_folder
from nearfar.progress import Progress
from nearfar.training import Checkpoint, FitSpec, ModelSpec, Recipe, TrainerSpec

__all__ = ["CIFAR"]

_SEEDS = (0, 1, 2)
_NETS = {
    "ResNet-20": ModelSpec("resnet20_cifar"),
    "MS-ResNet-21 (1×1)": ModelSpec("ms_resnet20_cifar"),
    "WSMS-ResNet-20 (no conv)": ModelSpec("wsms_resnet20_cifar", {"integration": "none"}),
    "WSMS-ResNet-21 (3×3)": ModelSpec("wsms_resnet20_cifar", {"integration": "conv3x3"}),
    "WSMS-ResNet-21 (1×1)": ModelSpec("wsms_resnet20_cifar", {"integration": "conv1x1"}),
}
_SCALES = (0.5, 1.0, 1.5)

_ERROR = Column("error", "test errors (%)")


def _runs(fast: bool) -> list[Run]:
    runs = []
    for row, model in _NETS.items():
        for seed in _SEEDS[:1] if fast else _SEEDS:
            data = DataSpec(
                "cifar10",
                protocol=ScaleProtocol(32, 32, test_scales=_SCALES),
                train=256 if fast else 10_000,
                validation=100 if fast else 2_000,
                test=200 if fast else 0,
                split="official",
                augment="crop_flip",
                normalize="standard",
            )
            fit = FitSpec(
                epochs=1 if fast else 4,
                batch_size=128,
                lr=0.1,
                optimizer="momentum",
                weight_decay=1e-4,
                decay_all=True,
            )
            recipe = Recipe(model, data.explicit(), fit, seed, TrainerSpec())
            runs.append(Run(row, recipe, run_folder("cifar", row, seed)))
    return runs


def _measure(run: Run, trained: Checkpoint, progress: Progress) -> dict[str, Any]:
    curve = audit(
        trained.path, spec=AuditSpec(scales=_SCALES, flips=0), progress=progress
    ).only.curve
    half, whole, larger = (100 * (1 - curve.accuracy(s)) for s in _SCALES)
    return {"error": whole, "error_half": half, "error_larger": larger}


def _picture(rows: Sequence[TableRow]) -> Figure:
    return plot_runs(
        rows,
        _ERROR,
        "test errors (%) on 10,000 images",
        "CIFAR-10, ResNet-20: a dot is a seed",
    )


CIFAR = Table(
    name="cifar",
    title="CIFAR-10: ResNet-20 plain, multi-stage (MS), weight-shared multi-stage (WSMS)",
    source="R. Takahashi, T. Matsubara and K. Uehara, Tables 1 and 2 (ResNet-110 and DenseNet-100, 164 and "
    "300 epochs: plain 6.61, MS 6.41, WSMS without convolution 7.23, 3×3 6.41, 1×1 6.36 % for ResNet-110)",
    columns=[
        _ERROR,
        Column("error_half", "at half size (%)"),
        Column("error_larger", "at 1.5 times the size (%)"),
    ],
    runs=_runs,
    measure=_measure,
    picture=_picture,
    paper={},
    remarks=[
        "Not the paper's experiment but its comparison at a depth and budget for 2 CPU cores: 20 layers, "
        "10,000 training images, 4 epochs (SGD with momentum 0.9, one cycle with peak 0.1, crops and "
        "flips). Compare rows with each other, not with the paper's errors.",
        "The rows differ by less than their seeds do: after so short a training no order of plain, MS and "
        "WSMS can be read from the errors at full size, and none of them holds at other sizes. The paper's "
        "differences, up to 0.9 points between nets of 6 to 7 % errors, need its budget.",
        "`cifar10-jpeg` is a lossy copy of the set, with errors of its own: not to be compared with figures "
        "for the lossless one.",
        "In full: `recipes/resnet110_cifar.yaml`, `ms_resnet110_cifar.yaml`, `wsms_resnet110_cifar.yaml`, "
        "`densenet100_k24_cifar.yaml`, `wsms_densenet100_k24_cifar.yaml`.",
    ],
)
