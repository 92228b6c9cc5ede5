"""A comparison small enough for tests; a module of its own, so that fresh processes can import it."""

from __future__ import annotations

from matplotlib.figure import Figure

from nearfar.data import DataSpec
from nearfar.experiments.tables.table import Column, PaperFigure, Run, Table
from nearfar.training import FitSpec, ModelSpec, Recipe, TrainerSpec

ERROR = Column("error", "errors (%)")


def runs(fast):
    data = DataSpec(train=64, validation=40, test=40).explicit()
    fit = FitSpec(epochs=1, batch_size=32)
    return [
        Run(name, Recipe(ModelSpec(model), data, fit, seed, TrainerSpec()), f"tiny/{name}-{seed}")
        for name, model in (("plain", "cnn_small"), ("pyramid", "pyramid_cnn_small"))
        for seed in ((0,) if fast else (0, 1))
    ]


def measure(run, trained, progress):
    return {"error": 100 * (1 - trained.record["validation_accuracy"])}


TABLE = Table(
    name="tiny",
    title="A tiny table",
    source="nobody, Table 0",
    columns=[ERROR],
    runs=runs,
    measure=measure,
    picture=lambda rows: Figure(),
    paper={"plain": {"error": PaperFigure(50.0, 1.5)}},
    remarks=["It says nothing."],
)


def find(name, fast):
    return TABLE, runs(fast)
