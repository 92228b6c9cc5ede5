"""The figures that the docs quote are the committed ones."""

from __future__ import annotations

import importlib
import json
import re
from types import ModuleType

import pytest

ROOMS = ["nearfar"] + [
    f"nearfar.{room}"
    for room in (
        *("auditing", "conversion", "counting", "data", "layers"),
        *("models", "classifiers", "deploy", "training", "wrapping"),
    )
]


def test_the_table_of_why_is_the_committed_one(pytestconfig):
    root = pytestconfig.rootpath
    table = (root / "results" / "why.md").read_text()
    assert table in (root / "docs" / "why.md").read_text()
    rows = json.loads((root / "results" / "why.json").read_text())["rows"]
    assert table.count("\n") == len(rows) + 2
    for row in rows:
        shares = " | ".join(f"{100 * a:.0f}" for a in row["accuracy"].values())
        assert f"| {row['question']} | {row['net']} | {shares} |" in table


def test_committed_results_are_of_this_schema(pytestconfig):
    import jsonschema

    schema = pytestconfig.rootpath / "src/nearfar/experiments/quickstart.schema.json"
    results = pytestconfig.rootpath / "results/quickstart.json"
    jsonschema.validate(json.loads(results.read_text()), json.loads(schema.read_text()))


def test_recipes_quote_the_committed_figures(pytestconfig):
    results = json.loads((pytestconfig.rootpath / "results/quickstart.json").read_text())
    for name, found in results["models"].items():
        text = (pytestconfig.rootpath / f"recipes/digits_{name}.yaml").read_text()
        for scale, accuracy in found["accuracy"].items():
            if scale in ("0.5", "1.0", "2.0"):
                assert f"{100 * accuracy:.0f} % at {float(scale):g}×" in text, (name, scale)


def test_the_page_of_costs_is_what_was_measured(pytestconfig):
    found = json.loads((pytestconfig.rootpath / "results/operators.json").read_text())
    page = (pytestconfig.rootpath / "docs/operators_cost.md").read_text()
    for row in found["table"]:
        for name in ("naive", "torch", "numba"):
            pair = f"{row['forward'][name]:.1f} / {row['forward_backward'][name]:.1f}"
            assert f"| {pair}" in page, (row["shape"], row["scales"], name)
    for row in found["others"]:
        assert f"{row['forward']['pyramid']:.2f} / {row['forward_backward']['pyramid']:.2f}" in page


def test_the_table_of_networks_is_what_was_counted(pytestconfig):
    from benchmarks.networks import table

    found = json.loads((pytestconfig.rootpath / "results/networks.json").read_text())
    assert table(found["rows"]) in (pytestconfig.rootpath / "docs/networks.md").read_text()


def test_what_wsms_costs_is_what_was_measured(pytestconfig):
    found = json.loads((pytestconfig.rootpath / "results/wsms.json").read_text())
    page = (pytestconfig.rootpath / "docs/networks.md").read_text()
    for threads, ratios in found["ratio_by_threads"].items():
        row = " | ".join(f"{ratios[name]:.2f}" for name in list(ratios)[1:])
        assert f"| {threads} | {row} |" in page


@pytest.mark.parametrize("page", ["networks.md", "data.md", "extending.md"])
def test_snippets_of_the_docs_run(page, pytestconfig, monkeypatch):
    # What a snippet registers is there for it alone.
    for module, name in (
        ("nearfar.auditing.figure_registry", "_REGISTRY"),
        ("nearfar.conversion.method", "_METHODS"),
        ("nearfar.data.sources.registry", "_SOURCES"),
    ):
        registered = importlib.import_module(module)
        monkeypatch.setattr(registered, name, dict(getattr(registered, name)))
    text = (pytestconfig.rootpath / "docs" / page).read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, page, "exec"), {})


def test_the_page_of_tables_is_what_was_reproduced(pytestconfig):
    from benchmarks.tables_page import page

    from nearfar.experiments.tables import TABLES

    root = pytestconfig.rootpath
    text = (root / "docs/tables.md").read_text()
    assert page(text) == text
    for name, table in TABLES.items():
        place = root / "results" / name
        if not place.is_dir():
            continue
        assert {p.name for p in place.iterdir()} == {"results.json", "table.md", "picture.png"}
        picture = (place / "picture.png").read_bytes()
        assert (root / "docs/tables" / f"{name}.png").read_bytes() == picture
        found = json.loads((place / "results.json").read_text())
        assert found["schema"] == "nearfar.table/2"
        assert not found["smoke_run"]
        runs = table.runs(False)
        assert {row["name"] for row in found["rows"]} <= {run.row for run in runs}
        assert found["runs_left"] == len(runs) - sum(len(row["runs"]) for row in found["rows"])
        quoted = (place / "table.md").read_text()
        for row in found["rows"]:
            assert {"name", "mean", "std", "runs", "paper", "parameters"} <= row.keys()
            first = found["columns"]
            values = [run[next(iter(first))] for run in row["runs"]]
            assert row["mean"] == pytest.approx(sum(values) / len(values))
            digits = table.columns[0].digits
            assert f"| {row['name']} | {row['mean']:.{digits}f}" in quoted


def test_the_north_star_s_table_is_what_was_measured(pytestconfig):
    found = json.loads((pytestconfig.rootpath / "results/north_star.json").read_text())
    page = (pytestconfig.rootpath / "docs/wrap.md").read_text()
    assert f"{found['test_images']:,} official test images" in page
    specialists = []
    for name, row in found["rows"].items():
        shares = {size: f"{100 * share:.1f}" for size, share in row["accuracy"].items()}
        if name.startswith("specialist"):
            specialists.append(shares[name.removeprefix("specialist at ")])
        elif name != "original, wrapped for 1.3":  # the same choice as for 2
            assert f"| {name} | {' | '.join(shares.values())} |" in page
    line = next(x for x in page.splitlines() if x.startswith("| specialists"))
    assert re.findall(r"\d\d\.\d(?= )", line) == specialists


def test_what_wrappers_gain_is_what_was_measured(pytestconfig):
    found = json.loads((pytestconfig.rootpath / "results/wrapping.json").read_text())
    page = (pytestconfig.rootpath / "docs/wrap.md").read_text()
    assert f"chosen on {found['chosen_on']} others" in page
    for row in found["rows"]:
        shares = " | ".join(f"{100 * share:.1f}" for share in row["accuracy"].values())
        assert f"| {row['name']} | {shares} |" in page
        if "gain" in row:
            assert f"{100 * row['gain'][0]:+.1f} ({100 * row['gain'][1]:.1f} to " in page


def test_the_scale_sets_that_the_docs_quote_are_the_measured_ones(pytestconfig):
    found = json.loads((pytestconfig.rootpath / "results/scale_sets.json").read_text())["mean"]
    said = (pytestconfig.rootpath / "docs/operators.md").read_text().replace("\n", " ")
    quoted = dict(re.findall(r"(octave|six) ((?:\d+, ){4}\d+)", said))
    assert quoted == {
        name: ", ".join(f"{100 * means[s]:.0f}" for s in ("0.5", "0.75", "1.0", "1.5", "2.0"))
        for name, means in found.items()
    }


@pytest.mark.parametrize("room", ROOMS)
def test_the_reference_has_every_public_name(room, pytestconfig):
    page = (pytestconfig.rootpath / "docs/api.md").read_text()
    shown = set()
    for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE):
        module = importlib.import_module(name)
        shown |= {id(getattr(module, word)) for word in getattr(module, "__all__", [])}
    house = importlib.import_module(room)
    public = {word: getattr(house, word) for word in house.__all__ if not word.startswith("_")}
    things = {word: thing for word, thing in public.items() if not isinstance(thing, ModuleType)}
    assert [word for word, thing in things.items() if id(thing) not in shown] == []
