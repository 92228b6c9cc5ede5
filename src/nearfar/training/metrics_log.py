"""``metrics.csv``: what each epoch logged, whole at every moment."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from nearfar.atomic import write_atomically

__all__ = ["MetricsLog"]


class MetricsLog(Logger):
    """Keeps all rows and writes the file anew with each, so that a kill leaves no torn or doubled row.

    Lightning's own logger rewrites its file in place, and deletes what an interrupted run left.

    Args:
        path: the file.
        rows: of the run that is taken up.
    """

    def __init__(self, path: Path, rows: list[dict[str, float]]) -> None:
        super().__init__()
        self.path = path
        self.rows = [dict(row) for row in rows]

    @property
    def name(self) -> str:
        """Of the logger, as Lightning asks it."""
        return "metrics"

    @property
    def version(self) -> str:
        """There is but one in a folder."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """They stand in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds a row."""
        row = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        whole = {"epoch": int(metrics["epoch"])} if "epoch" in metrics else {}
        self.rows.append({**row, **whole, **({} if step is None else {"step": step})})
        names = sorted({name for row in self.rows for name in row})
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue())
