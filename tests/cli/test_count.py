from __future__ import annotations

import csv
import io
import json
import re
import shlex

import pytest

from nearfar.cli import main


def run(capsys, *arguments):
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def test_the_table(capsys):
    status, out, err = run(capsys, "count", "cnn_small", "--input", "1x28x28")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert "cnn_small, for one image of 1×28×28" in lines[0]
    conv = next(line for line in lines if "stages.1.1" in line)
    figures = "6,272 2,508,800 12,800 12,832 2,508,800 25.1 kB 14×14"
    assert conv.split()[-8:] == figures.split()
    (total,) = (line for line in lines if line.startswith("total"))
    assert "13,578" in total
    assert max(map(len, lines)) <= 100
    assert "biases are" in out
    assert "--out cnn_small.csv" in out


def test_a_large_net_is_counted_without_its_weights(capsys):
    status, out, _ = run(capsys, "count", "resnet101")
    assert status == 0
    assert "3×224×224" in out
    assert max(map(len, out.splitlines())) <= 100
    assert "…" not in out
    assert "44,549,160" in out
    assert "104 rows of norms and the like" in out
    status, out, _ = run(capsys, "count", "resnet18", "--all", "--input", "3x64x64")
    assert re.search(r"^bn1 .* 128 ", out, re.MULTILINE)


def test_json_csv_and_files_hold_the_same(capsys, tmp_path):
    line = ("count", "si_cnn_small", "--options", "{scales: [0.5, 1]}", "--num_classes", "7")
    status, out, _ = run(capsys, *line, "--format", "json", "--out", str(tmp_path / "a.csv"))
    assert status == 0
    table = json.loads(out)
    assert table["model"] == "si_cnn_small"
    assert table["rows"][-1]["output"] == [7]
    assert table["rows"][0]["multiplications"] == (28 * 28 + 14 * 14) * 16 * 75
    _, text, _ = run(capsys, *line, "--format", "csv", "--out", str(tmp_path / "a.json"))
    assert (tmp_path / "a.csv").read_text() == text
    assert json.loads((tmp_path / "a.json").read_text()) == table
    *_, total = csv.DictReader(io.StringIO(text))
    assert int(total["connections"]) == table["total"]["connections"]


def test_biases(capsys):
    _, out, _ = run(capsys, "count", "cnn_small", "--biases", "--format", "json")
    assert json.loads(out)["total"]["weights"] == json.loads(out)["total"]["parameters"]
    _, out, _ = run(capsys, "count", "cnn_small", "--biases")
    assert "biases count as weights" in " ".join(out.split())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("count", "the following arguments are required: name; see 'nearfar count --help'"),
        ("count nothing", "no model is named 'nothing'"),
        ("count cnn_small --input 3x224", "such as 3x224x224, got '3x224'; write three whole"),
        ("count cnn_small --input 3x0x4", "three whole numbers of at least 1"),
        (
            "count cnn_small --format xml",
            "format must be one of table, json, csv, got 'xml'",
        ),
        ("count cnn_small --out a.txt", "out must end in .json or .csv, got a.txt"),
        ("count vit_tiny_patch16_224 --input 3x32x32", "does not take an image of 3×32×32"),
        ("count cnn_small --options '{a: 1}'", "does not take these options"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(capsys, line, message):
    status, out, err = run(capsys, *shlex.split(line))
    assert (status, out) == (2, "")
    assert err.count("\n") == 1, err
    assert re.search(message, err), err


def test_help_reads_well(capsys):
    with pytest.raises(SystemExit):
        main(["count", "--help"])
    out = capsys.readouterr().out
    assert "Counts a network layer by layer for one image." in out
    assert "nearfar count lenet5 --input 1x28x28" in out
    assert "``" not in out
