"""benchmark: the figures are what plain computations say, and what cannot be run is named."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time

import pytest
import torch

import nearfar
from nearfar.classifiers import load_classifier
from nearfar.cli import main
from nearfar.data import load_source
from nearfar.deploy import benchmark, runtimes
from nearfar.deploy.runtimes import RUNTIMES, Runtime
from nearfar.errors import InputError
from nearfar.models import create_model
from nearfar.pretrained import pretrained_file

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
NET = "zoom_digit@pretrained"


def other_answers(change):
    """A runtime that answers as eager does, changed."""

    def prepare(classifier, folder):
        return lambda images: change(classifier.predict(images)), None

    return Runtime(prepare)


def rows(result):
    return {row.runtime: row for row in result.figures}


def test_exported_runtimes_answer_as_the_network_does(tmp_path):
    out = tmp_path / "benchmark.json"
    result = benchmark(
        NET, "sample_digits", runtimes=("eager", "program", "onnx"), rounds=3, memory=False, out=out
    )
    figures = rows(result)
    assert all(not row.refused and row.difference < 1e-5 for row in figures.values())
    assert all(row.agreement == 1 for row in figures.values())
    samples = load_source("sample_digits")
    network = load_classifier(NET)
    answers = network.predict(samples.images.float() / 255).argmax(1)
    right = (answers == samples.labels).double().mean()
    assert figures["onnx"].accuracy[0] == pytest.approx(float(right))
    assert result.images == 100
    assert result.shape == (1, 28, 28)
    assert figures["onnx"].file_size > 4 * 157_690  # its parameters, in float32
    assert figures["eager"].file_size is None
    written = json.loads(out.read_text())
    assert written["schema"] == "nearfar.benchmark/1"
    assert written["figures"][2]["agreement"] == 1


def test_differences_are_shares_of_the_largest_answer(monkeypatch):
    monkeypatch.setitem(RUNTIMES, "larger", other_answers(lambda y: y * 1.25))
    monkeypatch.setitem(RUNTIMES, "other", other_answers(lambda y: y.roll(1, dims=1)))
    result = benchmark(
        NET, "sample_digits", runtimes=("eager", "larger", "other"), rounds=3, memory=False
    )
    figures = rows(result)
    assert figures["larger"].difference == pytest.approx(0.25)
    assert figures["larger"].agreement == 1
    assert figures["other"].agreement == 0
    # Every answer is the next class's: right where the network took the one before for it.
    samples = load_source("sample_digits")
    answers = load_classifier(NET).predict(samples.images.float() / 255).argmax(1)
    right = ((answers + 1) % 10 == samples.labels).double().mean()
    assert figures["other"].accuracy[0] == pytest.approx(float(right))


def test_times_are_of_one_image_and_of_a_batch(monkeypatch):
    def prepare(classifier, folder):
        time.sleep(0.2)

        def answer(images):
            time.sleep(0.01 * len(images))
            return torch.zeros(len(images), 10)

        return answer, None

    monkeypatch.setitem(RUNTIMES, "slow", Runtime(prepare))
    (row,) = benchmark(NET, runtimes=("slow",), batch_size=4, rounds=3, memory=False).figures
    assert row.preparation >= 0.2
    assert row.latency95 >= row.latency >= 0.01
    assert row.throughput <= 100
    assert row.accuracy is row.agreement is None


def test_memory_is_that_of_opening_and_answering():
    """In a process of its own, which knows a runtime that takes 256 MiB and one that takes none."""
    script = """
import sys, torch
from nearfar.deploy import runtime_memory as rm
from nearfar.deploy.runtimes import Runtime
def hungry(classifier, folder):
    held = torch.ones(2**26)
    return (lambda images: held), None
rm.RUNTIMES["frugal"] = Runtime(lambda classifier, folder: ((lambda images: images), None))
rm.RUNTIMES["hungry"] = Runtime(hungry)
job = {"runtime": sys.argv[1], "folder": ".", "open": {"model": "zoom_digit@pretrained"}}
print(rm._measure({**job, "shape": [1, 1, 28, 28]}))
"""
    sizes = {
        name: int(
            subprocess.run(
                [sys.executable, "-c", script, name], capture_output=True, text=True, check=True
            ).stdout
        )
        for name in ("frugal", "hungry")
    }
    assert sizes["frugal"] < 2**27
    assert abs(sizes["hungry"] - sizes["frugal"] - 2**28) < 2**26


def test_each_runtime_s_memory_is_measured_where_a_process_can_open_it():
    by_name = rows(benchmark(NET, runtimes=("onnx",), rounds=3))
    assert 2**20 < by_name["onnx"].memory < 2**30
    network = create_model("cnn_digit", in_chans=1)
    given = rows(benchmark(network, runtimes=("eager",), rounds=3))
    assert given["eager"].memory is None


def test_what_cannot_be_run_is_named(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        runtimes.importlib.util, "find_spec", lambda n: None if n == "openvino" else real(n)
    )
    file = tmp_path / "digits.onnx"
    nearfar.export(NET, file)
    result = benchmark(file, runtimes=("eager", "onnx", "openvino"), rounds=3, memory=False)
    figures = rows(result)
    assert "is no PyTorch network" in figures["eager"].refused
    assert (
        "openvino not installed: pip install 'nearfar[export]' openvino"
        in figures["openvino"].refused
    )
    assert figures["onnx"].file_size == file.stat().st_size
    with pytest.raises(InputError, match="can be run in none of these ways: eager: .* no PyTorch"):
        benchmark(file, runtimes=("eager",), rounds=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"runtimes": ("tensorrt",)},
            "some of eager, compiled, program, onnx, openvino, .* tensorrt",
        ),
        ({"runtimes": ()}, "each once, got none"),
        ({"runtimes": ("onnx", "onnx")}, "each once, got onnx, onnx"),
        ({"rounds": 2}, "rounds at least 3, got 32 and 2"),
        ({"batch_size": 0}, "batch_size must be at least 1 .* got 0"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        benchmark(NET, **options)


def test_the_command_shows_a_table_and_what_comes_next(capsys):
    words = (
        f"benchmark {NET} --data sample_digits --runtimes [eager,onnx] --rounds 3 --memory false"
    )
    status = main(words.split())
    shown = capsys.readouterr().out
    assert status == 0
    assert "images" in shown
    assert "Right on 100 images: " in shown
    assert (
        f"nearfar export {NET} --out model.onnx" in shown or "Most images a second: eager" in shown
    )


@pytest.mark.slow
def test_compiled_and_openvino_answer_alike():
    figures = rows(benchmark(NET, rounds=3, memory=False))
    assert figures["compiled"].difference < 1e-5
    if importlib.util.find_spec("openvino"):
        assert figures["openvino"].difference < 1e-5


def test_the_checkpoint_itself_can_be_named():
    path = pretrained_file("zoom_digit")
    (row,) = benchmark(path, runtimes=("eager",), rounds=3, memory=False).figures
    assert row.latency > 0
