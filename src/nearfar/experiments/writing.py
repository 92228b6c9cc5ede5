"""A table's figures as JSON for programs and Markdown for readers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearfar.experiments.tables.table import Column, PaperFigure, RunResult, Table, TableRow
from nearfar.training import Recipe

__all__ = ["SCHEMA", "TableStatus", "as_json", "as_markdown", "changes", "ours", "with_changes"]

#: The format of ``results.json``.
SCHEMA = "nearfar.table/2"


def changes(changed: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Where a nested dict differs from another of the same keys: ``{"data.split_seed": 3}``.

    Args:
        whole: the dict that is told.
        base: what it is told from.
    """
    differences: dict[str, Any] = {}
    for key, value in changed.items():
        before = base[key]
        if (
            isinstance(value, Mapping)
            and isinstance(before, Mapping)
            and value.keys() == before.keys()
        ):
            differences |= {f"{key}.{inner}": v for inner, v in changes(value, before).items()}
        elif value != before:
            differences[key] = value
    return differences


def with_changes(base: Mapping[str, Any], differences: Mapping[str, Any]) -> dict[str, Any]:
    """The dict that :func:`changes` told.

    Raises:
        KeyError: a change at a place that ``base`` does not have.
    """
    changed = copy.deepcopy(dict(base))
    for path, value in differences.items():
        *outer, last = path.split(".")
        parent = changed
        for key in outer:
            parent = parent[key]
        if last not in parent:
            raise KeyError(path)
        parent[last] = value
    return changed


@dataclass(frozen=True)
class TableStatus:
    """How figures were made.

    Attributes:
        command: what was run.
        fast: a smoke run, whose figures mean nothing.
        runs_left: how many runs are still to come.
    """

    command: str
    fast: bool
    runs_left: int


def as_json(table: Table, rows: Sequence[TableRow], status: TableStatus) -> dict[str, Any]:
    """Everything that was measured, every seed's run included.

    Args:
        table: which.
        rows: its finished rows.
        status: how they were made.
    """
    return {
        "schema": SCHEMA,
        "table": table.name,
        "title": table.title,
        "source": table.source,
        "command": status.command,
        "smoke_run": status.fast,
        "runs_left": status.runs_left,
        **_provenance(rows),
        "columns": {column.key: column.title for column in table.columns},
        "rows": [_row(table, row) for row in rows],
        "remarks": list(table.remarks),
    }


def _provenance(rows: Sequence[TableRow]) -> dict[str, str]:
    """Machines, dates and versions of the measurements, each once."""
    runs = [run.provenance for row in rows for run in row.runs]
    versions = {
        ", ".join(f"{k} {v}" for k, v in provenance["versions"].items()) for provenance in runs
    }
    dates = sorted({provenance["date"] for provenance in runs})
    editions = sorted({provenance["images"] for provenance in runs if provenance.get("images")})
    return {
        "images": "; ".join(editions),
        "machine": "; ".join(sorted({provenance["machine"] for provenance in runs})),
        "date": " to ".join(dict.fromkeys((dates[0], dates[-1]))),
        "versions": "; ".join(sorted(versions)),
    }


def _row(table: Table, row: TableRow) -> dict[str, Any]:
    first = table.columns[0]
    recipe = _recipe(row.runs[0])
    return {
        "name": row.name,
        "mean": row.mean(first),
        "std": row.std(first),
        "paper": _printed(row.paper.get(first.key)),
        "parameters": row.parameters,
        "columns": {
            column.key: {
                "mean": row.mean(column),
                "std": row.std(column),
                "paper": _printed(row.paper.get(column.key)),
            }
            for column in table.columns
        },
        "runs": [_run(run, recipe) for run in row.runs],
        "recipe": recipe,
    }


def _run(run: RunResult, of_the_row: dict[str, Any]) -> dict[str, Any]:
    """A run's figures, and how it was made: in what its recipe differs from the row's first run's."""
    provenance = {key: value for key, value in run.provenance.items() if key != "recipe"}
    recipe = changes(_recipe(run), of_the_row)
    figures = {"seed": run.seed, "best_epoch": run.best_epoch, **run.values}
    return {**figures, "recipe": recipe, "made": provenance}


def _recipe(run: RunResult) -> dict[str, Any]:
    """As this version writes it: records of older ones lack what came later."""
    return Recipe.from_dict(run.provenance["recipe"]).as_dict()


def _printed(figure: PaperFigure | None) -> dict[str, Any] | None:
    return None if figure is None else {"mean": figure.mean, "std": figure.std, "note": figure.note}


def as_markdown(table: Table, rows: Sequence[TableRow], status: TableStatus) -> str:
    """The table as a reader wants it: ours beside the paper's."""
    lines = [f"# {table.title}", ""]
    if status.fast:
        lines += ["**A smoke run: everything works, but these figures mean nothing.**", ""]
    if status.runs_left:
        lines += [f"**{status.runs_left} runs are still to come.**", ""]
    heading, rule = ["net"], ["---"]
    for column in table.columns:
        printed = any(column.key in row.paper for row in rows)
        heading += [column.title, "paper"] if printed else [column.title]
        rule += ["---:", "---:"] if printed else ["---:"]
    heading += ["runs", "parameters"]
    rule += ["---:", "---:"]
    lines += [_line(heading), _line(rule)]
    for row in rows:
        cells = [row.name]
        for column in table.columns:
            cells.append(ours(row, column))
            if any(column.key in other.paper for other in rows):
                cells.append(_paper(row.paper.get(column.key), column))
        lines.append(_line([*cells, str(len(row.runs)), f"{row.parameters:,}"]))
    lines += ["", f"Paper: {table.source}. Ours: mean ± standard deviation over the runs.", ""]
    lines += [f"- {remark}" for remark in table.remarks]
    seeds = sorted({run.seed for row in rows for run in row.runs})
    made_with = _provenance(rows)
    images = f"images: `{made_with['images']}`; " if made_with["images"] else ""
    lines += [
        "",
        f"`{status.command}`; {images}seeds {', '.join(map(str, seeds))}; {made_with['machine']}; "
        f"{made_with['versions']}; {made_with['date']}. Every run's figures and the recipes: "
        f"`results.json`.",
        "",
    ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def ours(row: TableRow, column: Column) -> str:
    """Our mean ± standard deviation, as both the page and the terminal print it."""
    return _pair(row.mean(column), row.std(column), column.digits)


def _paper(figure: PaperFigure | None, column: Column) -> str:
    if figure is None:
        return ""
    note = f" {figure.note}" if figure.note else ""
    return _pair(figure.mean, figure.std, column.digits) + note


def _pair(mean: float | None, std: float | None, digits: int) -> str:
    if mean is None:
        return ""
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")
