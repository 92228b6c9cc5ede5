from __future__ import annotations

import json
import statistics

import pytest
import tiny_table

from nearfar.errors import InputError
from nearfar.experiments import reproduce as module
from nearfar.experiments import running
from nearfar.experiments.reproduce import reproduce
from nearfar.experiments.running import run_all
from nearfar.experiments.tables import TABLES
from nearfar.experiments.tables.relu_vs_tanh import epochs_until, training_errors
from nearfar.experiments.tables.table import Column, Measured, Printed, Row
from nearfar.progress import silent


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
    assert partial.left == 2
    assert [row.name for row in partial.rows] == ["plain"]
    assert "**2 runs are still to come.**" in (tmp_path / "out" / "table.md").read_text()
    again = []

    def counting(*args, **kwargs):
        again.append(kwargs["out"].name)
        return real(*args, **kwargs)

    monkeypatch.setattr(running, "train", counting)
    whole = reproduce("tiny", **places)
    assert again == ["pyramid-0", "pyramid-1"]
    assert whole.left == 0
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
        reproduce("tiny", jobs=0)
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


def test_rows_average_the_runs_that_have_a_figure():
    part = Column("part", "part")
    whole = Column("whole", "whole", spread=False)
    runs = (
        Measured("a", 0, {"whole": 1.0, "part": 4.0}, 10, 1),
        Measured("a", 1, {"whole": 3.0}, 10, 1),
    )
    row = Row("a", runs, {"whole": Printed(2.0)})
    assert row.mean(whole) == 2.0
    assert row.std(whole) is None
    assert row.mean(part) == 4.0
    assert row.std(part) is None
    assert row.mean(Column("none", "none")) is None


def test_epochs_until_a_goal_lie_on_the_line_between_two():
    assert epochs_until([60.0, 40.0, 20.0], 25.0) == pytest.approx(2.25)
    assert epochs_until([20.0], 25.0) == 0.5
    assert epochs_until([60.0, 50.0], 25.0) == float("inf")


def test_training_errors_come_from_the_run_s_own_log(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,train/accuracy,validation/loss\n0,0.25,\n0,,1.5\n1,0.75,\n")
    assert training_errors(file) == [75.0, 25.0]


@pytest.mark.parametrize("name", list(TABLES))
def test_every_table_names_its_runs_once(name):
    table = TABLES[name]
    for fast in (False, True):
        runs = table.runs(fast)
        assert len({run.folder for run in runs}) == len(runs)
        assert len({(run.row, run.folder) for run in runs}) == len(runs)
    assert set(table.paper) <= {run.row for run in table.runs(False)}
    assert module.find_table(name, False)[0] is table
