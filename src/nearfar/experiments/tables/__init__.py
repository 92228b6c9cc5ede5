"""The papers' tables, one a file."""

from nearfar.experiments.tables.cifar import CIFAR
from nearfar.experiments.tables.invariance import INVARIANCE
from nearfar.experiments.tables.mnist_scale import MNIST_SCALE
from nearfar.experiments.tables.relu_vs_tanh import RELU_VS_TANH
from nearfar.experiments.tables.stir import STIR_DIGITS
from nearfar.experiments.tables.table import Column, PaperFigure, Run, RunResult, Table, TableRow
from nearfar.experiments.tables.tiny_imagenet import TINY_IMAGENET
from nearfar.experiments.tables.weak_scales import WEAK_SCALES

__all__ = ["TABLES", "Column", "PaperFigure", "Run", "RunResult", "Table", "TableRow"]

#: By the name that ``nearfar reproduce`` takes.
TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        MNIST_SCALE,
        INVARIANCE,
        RELU_VS_TANH,
        TINY_IMAGENET,
        CIFAR,
        WEAK_SCALES,
        STIR_DIGITS,
    )
}
