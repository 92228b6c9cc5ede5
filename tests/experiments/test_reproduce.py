from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_table
import torch

from nearfar.data import LabelledImages, Normalisation, Normalised
from nearfar.errors import InputError
from nearfar.experiments import reproduce as module
from nearfar.experiments import running
from nearfar.experiments.reproduce import reproduce
from nearfar.experiments.running import run_all
from nearfar.experiments.tables import TABLES, invariance
from nearfar.experiments.tables.relu_vs_tanh import epochs_until, training_errors
from nearfar.experiments.tables.table import Column, PaperFigure, RunResult, TableRow
from nearfar.models import create_model
from nearfar.progress import silent
from nearfar.training import FitSpec, Recipe


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(TABLES, "tiny", tiny_table.TABLE)


def test_ours_stands_beside_the_paper_s(tiny, tmp_path):
    steps = []
    result = reproduce("tiny", out=tmp_path / "out", work=tmp_path / "work", progress=steps.append)
    assert {p.name for p in result.out.iterdir()} == {"results.json", "table.md", "picture.png"}
    found = json.loads((result.out / "results.json").read_text())
    plain, pyramid = found["rows"]
    assert (plain["name"], pyramid["name"]) == ("plain", "pyramid")
    errors = [run["error"] for run in plain["runs"]]
    assert [run["seed"] for run in plain["runs"]] == [0, 1]
    assert plain["mean"] == pytest.approx(statistics.fmean(errors))
    assert plain["std"] == pytest.approx(statistics.stdev(errors))
    assert plain["paper"] == {"mean": 50.0, "std": 1.5, "note": ""}
    assert pyramid["paper"] is None
    assert plain["parameters"] == 13_578
    assert found["runs_left"] == 0
    assert found["command"] == "nearfar reproduce tiny"
    table = (result.out / "table.md").read_text()
    mean, std = plain["mean"], plain["std"]
    assert f"| plain | {mean:.2f} ± {std:.2f} | 50.00 ± 1.50 | 2 | 13,578 |" in table
    assert "- It says nothing." in table
    assert steps[0].task == "tiny: 4 of 4 runs left"
    assert steps[-1].task == "tiny: all runs done"
    shares = [step.done / step.total for step in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_it_goes_on_where_it_stopped(tiny, tmp_path, monkeypatch):
    trained = []
    real = running.train

    def interrupted(*args, **kwargs):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(kwargs["out"].name)
        return real(*args, **kwargs)

    monkeypatch.setattr(running, "train", interrupted)
    places = {"out": tmp_path / "out", "work": tmp_path / "work"}
    with pytest.raises(KeyboardInterrupt):
        reproduce("tiny", **places)
    assert trained == ["plain-0", "plain-1"]
    assert not (tmp_path / "out").exists()
    partial = reproduce("tiny", now=True, **places)
    assert partial.runs_left == 2
    assert [row.name for row in partial.rows] == ["plain"]
    assert "**2 runs are still to come.**" in (tmp_path / "out" / "table.md").read_text()
    again = []

    def counting(*args, **kwargs):
        again.append(kwargs["out"].name)
        return real(*args, **kwargs)

    monkeypatch.setattr(running, "train", counting)
    whole = reproduce("tiny", **places)
    assert again == ["pyramid-0", "pyramid-1"]
    assert whole.runs_left == 0
    assert whole.rows[0].runs == partial.rows[0].runs


def test_several_processes_measure_the_same(tmp_path):
    steps = []
    together = run_all(tiny_table.TABLE, tiny_table.find, False, tmp_path / "two", 2, steps.append)
    alone = run_all(tiny_table.TABLE, tiny_table.find, False, tmp_path / "one", 1, silent)
    assert [(m.row, m.seed) for m in together] == [(m.row, m.seed) for m in alone]
    for two, one in zip(together, alone, strict=True):  # fewer threads may round otherwise
        assert two.values["error"] == pytest.approx(one.values["error"], abs=5)
        assert two.parameters == one.parameters
    assert steps[-1].task == "tiny: all runs done"
    assert any("epoch 1" in step.note for step in steps)


def test_bad_input_is_refused_before_anything_is_trained(tiny, tmp_path):
    with pytest.raises(InputError, match="no table is named 'nothing'; there are mnist-scale, inv"):
        reproduce("nothing")
    with pytest.raises(InputError, match="jobs must be at least 1, got 0"):
        reproduce("tiny", jobs=0, out=tmp_path / "out", work=tmp_path / "work")
    with pytest.raises(InputError, match="no run of tiny is finished in .*; leave out --now"):
        reproduce("tiny", now=True, out=tmp_path / "out", work=tmp_path / "work")
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("keep me")
    with pytest.raises(
        InputError, match="is not empty and holds no results of tiny; choose another"
    ):
        reproduce("tiny", out=other, work=tmp_path / "work")
    (other / "results.json").write_text('{"table": "cifar"}')
    with pytest.raises(InputError, match="holds no results of tiny"):
        reproduce("tiny", out=other, work=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_measurement_of_another_version_is_made_again(tiny, tmp_path):
    places = {"out": tmp_path / "out", "work": tmp_path / "work"}
    first = reproduce("tiny", fast=True, **places)
    file = tmp_path / "work" / "smoke" / "tiny" / "plain-0" / "measured-tiny.json"
    file.write_text('{"row": "plain", "unknown": 3}')
    again = reproduce("tiny", fast=True, **places)
    assert again.rows == first.rows


def test_figures_of_another_recipe_or_measurement_are_not_taken(tiny, tmp_path, monkeypatch):
    places = {"out": tmp_path / "out", "work": tmp_path / "work"}
    reproduce("tiny", **places)
    table = dataclasses.replace(tiny_table.TABLE, version=2, measure=lambda *_: {"error": 7.0})
    monkeypatch.setitem(TABLES, "tiny", table)
    assert {row.mean(tiny_table.ERROR) for row in reproduce("tiny", **places).rows} == {7.0}

    def longer(fast):
        return [
            dataclasses.replace(
                run, recipe=dataclasses.replace(run.recipe, fit=FitSpec(epochs=2, batch_size=32))
            )
            for run in tiny_table.runs(fast)
        ]

    monkeypatch.setitem(TABLES, "tiny", dataclasses.replace(table, runs=longer))
    with pytest.raises(InputError, match="run plain-0 of tiny: .*keeps its runs below --work"):
        reproduce("tiny", **places)


def test_machines_share_a_table(tiny, tmp_path, monkeypatch):
    here = {"out": tmp_path / "here", "work": tmp_path / "work"}
    there = {"out": tmp_path / "there", "work": tmp_path / "work2"}
    part = reproduce("tiny", rows=("pyr*",), **there)
    assert part.runs_left == 2
    assert [row.name for row in part.rows] == ["pyramid"]
    file = tmp_path / "there" / "results.json"
    held = json.loads(file.read_text())
    held["rows"][0]["runs"][1]["made"] |= {"date": "2020-02-02", "machine": "an abacus"}
    file.write_text(json.dumps(held))
    trained = []
    real = running.train

    def counting(*args, **kwargs):
        trained.append(kwargs["out"].name)
        return real(*args, **kwargs)

    monkeypatch.setattr(running, "train", counting)
    result_files = (tmp_path / "there",)
    whole = reproduce("tiny", result_files=result_files, **here)
    assert trained == ["plain-0", "plain-1"]
    assert whole.runs_left == 0
    taken = whole.rows[1].runs
    assert [run.values for run in taken] == [run.values for run in part.rows[0].runs]
    assert [run.seed for run in taken] == [0, 1]
    recipes = [Recipe.from_dict(run.provenance["recipe"]) for run in taken]
    assert recipes == [run.recipe for run in tiny_table.runs(False)[2:]]
    found = json.loads((tmp_path / "here" / "results.json").read_text())
    assert found["machine"].endswith("; an abacus")
    assert found["rows"][1]["runs"][1]["recipe"] == {"seed": 1}
    # What came from elsewhere goes on to others, with where and when it was made.
    third = reproduce(
        "tiny", now=True, result_files=(tmp_path / "here" / "results.json",), out=tmp_path / "3"
    )
    assert json.loads((third.out / "results.json").read_text())["rows"] == found["rows"]


def test_what_another_table_or_recipe_or_version_found_is_not_taken(tiny, tmp_path, monkeypatch):
    places = {"out": tmp_path / "out", "work": tmp_path / "work"}
    reproduce("tiny", **places)
    file = places["out"] / "results.json"
    held = json.loads(file.read_text())
    elsewhere = {
        "work": tmp_path / "none",
        "out": tmp_path / "again",
        "now": True,
        "result_files": (file,),
    }

    def given(**changed):
        file.write_text(json.dumps({**held, **changed}))

    given(table="cifar")
    with pytest.raises(InputError, match=r"results.json holds results of cifar, and not of tiny"):
        reproduce("tiny", **elsewhere)
    given(smoke_run=True)
    with pytest.raises(InputError, match=r"holds the figures of a smoke run, which mean nothing"):
        reproduce("tiny", **elsewhere)
    given(schema="nearfar.table/1")
    with pytest.raises(InputError, match=r"\(nearfar.table/2\), got 'nearfar.table/1'"):
        reproduce("tiny", **elsewhere)
    given(rows=[{"name": "plain", "runs": [{"seed": 0}]}])
    with pytest.raises(
        InputError, match=r"is damaged, a run lacks or has a wrong 'made'; leave it"
    ):
        reproduce("tiny", **elsewhere)
    for spoil, said in (
        (lambda run: run["made"].pop("machine"), "'machine'"),
        (lambda run: run["made"].update(versions="all"), "versions must be a mapping"),
        (lambda run: run.pop("error"), "'error'"),
        (lambda run: run.update(error="abc"), "error must be a number or null, got 'abc'"),
        (lambda run: run.update(recipe=[]), "list"),
    ):
        other = json.loads(json.dumps(held))
        spoil(other["rows"][0]["runs"][0])
        given(rows=other["rows"])
        with pytest.raises(InputError, match=f"is damaged, a run lacks or has a wrong .*{said}"):
            reproduce("tiny", **elsewhere)
    file.write_text("[1")
    with pytest.raises(InputError, match=r"results.json is not JSON that can be read"):
        reproduce("tiny", **elsewhere)
    with pytest.raises(
        InputError, match=r"cannot be read: No such file .* name a results.json of tiny"
    ):
        reproduce("tiny", **(elsewhere | {"result_files": (tmp_path / "nowhere",)}))
    other = json.loads(json.dumps(held))
    other["rows"][0]["recipe"]["fit"]["epochs"] = 7  # the first row's two runs
    other["rows"][0]["runs"][1]["recipe"] = {"fit.epochs": "of a later nearfar"}
    other["rows"][1]["runs"][0]["made"]["measure"] = 0
    given(rows=other["rows"])
    rest = reproduce("tiny", **elsewhere)
    assert [(row.name, [run.seed for run in row.runs]) for row in rest.rows] == [("pyramid", [1])]
    given(rows=other["rows"][:1])
    with pytest.raises(InputError, match="holds no run whose row, recipe and way of measuring are"):
        reproduce("tiny", **elsewhere)


def test_more_runs_are_not_replaced_by_fewer(tiny, tmp_path, monkeypatch):
    """Which is said before anything is trained."""
    out = tmp_path / "out"
    whole = reproduce("tiny", out=out, work=tmp_path / "work")
    before = (out / "results.json").read_bytes()
    monkeypatch.setattr(running, "train", None)
    for options in ({"rows": ("plain",)}, {"now": True, "result_files": (_part(out, tmp_path),)}):
        with pytest.raises(
            InputError, match="holds 4 runs, which 2 must not replace; .* --result_files "
        ):
            reproduce("tiny", out=out, work=tmp_path / "none", **options)
    assert (out / "results.json").read_bytes() == before
    again = reproduce("tiny", out=out, work=tmp_path / "none", rows="plain", result_files=str(out))
    assert [row.runs for row in again.rows] == [row.runs for row in whole.rows]


def _part(out, tmp_path):
    """Half of a table in a folder of its own."""
    held = json.loads((out / "results.json").read_text())
    held["rows"] = held["rows"][:1]
    part = tmp_path / "part.json"
    part.write_text(json.dumps(held))
    return part


def test_figures_on_different_images_do_not_meet(tiny, tmp_path):
    places = {"out": tmp_path / "out", "work": tmp_path / "work"}
    reproduce("tiny", **places)
    part = _part(places["out"], tmp_path)
    held = json.loads(part.read_text())
    held["rows"][0]["runs"][1]["made"]["images"] = "another edition"
    part.write_text(json.dumps(held))
    with pytest.raises(InputError, match=r"are of different images \('' and 'another edition'\)"):
        reproduce(
            "tiny", now=True, result_files=(part,), out=tmp_path / "2", work=tmp_path / "none"
        )


def test_options_that_choose_nothing_are_refused(tiny, tmp_path):
    places = {"out": tmp_path / "out", "work": tmp_path / "work"}
    with pytest.raises(InputError, match=r"tiny has no row 'pl'; its rows are 'plain', 'pyramid'"):
        reproduce("tiny", rows=("pl",), **places)
    with pytest.raises(InputError, match="now trains nothing, so rows would choose nothing"):
        reproduce("tiny", rows=("plain",), now=True, **places)
    with pytest.raises(
        InputError, match="a smoke run's figures are its own; leave out result_files"
    ):
        reproduce("tiny", fast=True, result_files=(tmp_path,), **places)
    assert not (tmp_path / "work").exists()


def test_what_was_measured_says_how(tiny, tmp_path):
    places = {"out": tmp_path / "out", "work": tmp_path / "work"}
    result = reproduce("tiny", fast=True, **places)
    found = json.loads((result.out / "results.json").read_text())
    assert found["rows"][0]["recipe"]["data"]["train"] == 64
    file = tmp_path / "work" / "smoke" / "tiny" / "plain-0" / "measured-tiny.json"
    kept = json.loads(file.read_text())
    kept["provenance"] |= {"date": "2020-02-02", "machine": "an abacus"}
    file.write_text(json.dumps(kept))
    reproduce("tiny", fast=True, **places)
    found = json.loads((result.out / "results.json").read_text())
    assert found["machine"].endswith("; an abacus")
    assert found["date"].startswith("2020-02-02 to 20")


def test_a_whole_table_is_not_replaced_by_less(tiny, tmp_path):
    whole = tmp_path / "whole"
    reproduce("tiny", out=whole, work=tmp_path / "work")
    before = (whole / "results.json").read_bytes()
    with pytest.raises(InputError, match="which a smoke run must not replace"):
        reproduce("tiny", out=whole, work=tmp_path / "work", fast=True)
    (tmp_path / "work" / "tiny" / "plain-0" / "measured-tiny.json").unlink()
    with pytest.raises(InputError, match="holds 4 runs, which 3 must not replace"):
        reproduce("tiny", out=whole, work=tmp_path / "work", now=True)
    assert (whole / "results.json").read_bytes() == before
    with pytest.raises(InputError, match="is a file; choose a folder with --out"):
        reproduce("tiny", out=whole / "table.md")


def test_a_run_that_cannot_be_ends_the_others(tmp_path):
    folder = tmp_path / "tiny" / "pyramid-0"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="run pyramid-0 of tiny: .* is not empty"):
        run_all(tiny_table.TABLE, tiny_table.find, True, tmp_path, 2, silent)
    assert not multiprocessing.active_children()
    assert (folder / "mine.txt").read_text() == "keep me"


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_first(blow, tmp_path):
    """Struck while two runs are under way, all processes end soon, and the next call goes on."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "import tiny_table\n"
        "from nearfar.experiments.running import run_all\n"
        "if __name__ == '__main__':\n"
        "    tell = lambda step: print(step.note, flush=True)\n"
        "    run_all(tiny_table.TABLE, tiny_table.find, False, Path(sys.argv[1]), 2, tell)\n"
    )
    paths = os.pathsep.join(
        [str(Path(tiny_table.__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    command = [sys.executable, str(script), str(tmp_path / "work")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch" in line:
            break
    if blow == signal.SIGINT:
        os.killpg(process.pid, blow)
    else:
        process.send_signal(blow)
    process.stdout.close()
    process.wait(60)
    ended = time.monotonic()
    while _session(process.pid) and time.monotonic() - ended < 60:
        time.sleep(0.2)
    assert not _session(process.pid)
    measured = run_all(tiny_table.TABLE, tiny_table.find, False, tmp_path / "work", 2, silent)
    assert len(measured) == 4


def _session(leader):
    """Processes of a session that run."""
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=", "-s", str(leader)], capture_output=True, text=True
    )
    return [line for line in found.stdout.splitlines() if "Z" not in line.split()[1]]


def test_rows_average_the_runs_that_have_a_figure():
    part = Column("part", "part")
    whole = Column("whole", "whole", spread=False)
    runs = (
        RunResult("a", 0, {"whole": 1.0, "part": 4.0}, 10, 1, {}),
        RunResult("a", 1, {"whole": 3.0, "part": None}, 10, 1, {}),
    )
    row = TableRow("a", runs, {"whole": PaperFigure(2.0)})
    assert row.mean(whole) == 2.0
    assert row.std(whole) is None
    assert row.mean(part) == 4.0
    assert row.std(part) is None
    assert row.mean(Column("none", "none")) is None


def test_epochs_until_a_goal_lie_on_the_line_between_two():
    assert epochs_until([60.0, 40.0, 20.0], 25.0) == pytest.approx(2.25)
    assert epochs_until([20.0], 25.0) == 0.5
    assert epochs_until([60.0, 50.0], 25.0) is None


def test_training_errors_come_from_the_run_s_own_log(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,train/accuracy,validation/loss\n0,0.25,\n0,,1.5\n1,0.75,\n")
    assert training_errors(file) == [75.0, 25.0]


def test_the_invariance_table_measures_nets_that_normalise_their_images(monkeypatch):
    table = TABLES["invariance"]
    run = table.runs(True)[0]
    run = dataclasses.replace(
        run,
        recipe=dataclasses.replace(run.recipe, data=dataclasses.replace(run.recipe.data, test=100)),
    )
    torch.manual_seed(0)
    images = torch.randint(256, (100, 1, 28, 28), dtype=torch.uint8)
    digits = LabelledImages(images, torch.zeros(100, dtype=torch.long), ("0",), test_from=0)
    monkeypatch.setattr(invariance, "load_source", lambda *_: digits)
    net = create_model("cnn_mnist_scale").eval()
    alike = Normalised(net, Normalisation((0.0,), (1.0,)))
    found, bare = (
        table.measure(run, SimpleNamespace(recipe=run.recipe, model=model), silent)
        for model in (alike, net)
    )
    assert found == bare
    assert set(found) == {column.key for column in table.columns}


@pytest.mark.parametrize("name", list(TABLES))
def test_every_table_names_its_runs_once(name):
    table = TABLES[name]
    for fast in (False, True):
        runs = table.runs(fast)
        assert len({run.folder for run in runs}) == len(runs)
        assert len({(run.row, run.folder) for run in runs}) == len(runs)
    assert set(table.paper) <= {run.row for run in table.runs(False)}
    assert module.find_table(name, False)[0] is table
