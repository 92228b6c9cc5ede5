"""Runs of a table that were finished elsewhere, out of the ``results.json`` that was written there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nearfar.errors import InputError
from nearfar.experiments.tables.table import Run, RunResult, Table
from nearfar.experiments.writing import SCHEMA, with_changes
from nearfar.records import as_dataclass, as_typed, parse_json
from nearfar.training import Recipe

__all__ = ["external_results"]

#: What ``results.json`` says of a run besides its figures.
_SAID = ("seed", "best_epoch", "made", "recipe")
_PROVENANCE = ("measure", "machine", "date", "versions")


def external_results(
    table: Table, runs: Sequence[Run], files: Sequence[Path]
) -> dict[int, RunResult]:
    """What ``results.json`` files hold of a table's runs, by the run's place among them.

    Runs of another recipe, or measured in another way, are no runs of the table and are left out.

    Args:
        table: which.
        runs: its runs.
        files: each a ``results.json``, or the folder it lies in; where two hold a run, the first counts.

    Raises:
        InputError: a file that is missing, is not such a file, holds another table or a smoke run, or
            no run of the table.
    """
    results: dict[int, RunResult] = {}
    for file in files:
        path = file / "results.json" if file.is_dir() else file
        of_this_table = {
            i: measured
            for measured in _read(table, path)
            for i, run in enumerate(runs)
            if (run.row, run.recipe) == (measured.row, _recipe(measured))
        }
        if not of_this_table:
            raise InputError(
                f"{path} holds no run whose row, recipe and way of measuring are those of {table.name} in "
                f"this version of nearfar; leave it out"
            )
        results = of_this_table | results
    return results


def _read(table: Table, file: Path) -> list[RunResult]:
    mend = f"name a results.json of {table.name} or its folder"
    try:
        content = parse_json(file.read_bytes(), str(file), mend)
    except OSError as cause:
        raise InputError(f"{file} cannot be read: {cause.strerror}; {mend}") from cause
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise InputError(
            f"{file} must be a results.json of this version of nearfar ({SCHEMA}), got {schema!r}"
        )
    if content.get("table") != table.name:
        raise InputError(f"{file} holds results of {content.get('table')}, and not of {table.name}")
    if content.get("smoke_run"):
        raise InputError(f"{file} holds the figures of a smoke run, which mean nothing")
    try:
        return [
            _measured(table, row, run)
            for row in content["rows"]
            for run in row["runs"]
            if run["made"]["measure"] == table.version
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        raise InputError(
            f"{file} is damaged, a run lacks or has a wrong {cause}; leave it out, or write it again where "
            f"its runs are, with --now"
        ) from cause


def _measured(table: Table, row: Mapping[str, Any], run: Mapping[str, Any]) -> RunResult:
    values = {key: value for key, value in run.items() if key not in _SAID}
    values[table.columns[0].key]  # without which it is no run
    for column in table.columns:
        as_typed(float | None, values.get(column.key), column.key)
    provenance: dict[str, Any] = {
        key: as_typed(str | int | dict[str, str], run["made"][key], key) for key in _PROVENANCE
    }
    provenance["versions"] = as_typed(dict[str, str], provenance["versions"], "versions")
    provenance["images"] = as_typed(str, run["made"].get("images", ""), "images")
    provenance["recipe"] = with_changes(row["recipe"], run["recipe"])
    fields = {
        "row": row["name"],
        "seed": run["seed"],
        "values": values,
        "parameters": row["parameters"],
        "best_epoch": run["best_epoch"],
        "provenance": provenance,
    }
    return as_dataclass(RunResult, fields, "run")


def _recipe(measured: RunResult) -> Recipe | None:
    """Nothing where another version of nearfar wrote what this one does not know."""
    try:
        return Recipe.from_dict(measured.provenance["recipe"])
    except InputError:
        return None
