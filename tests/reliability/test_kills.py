"""Killed anywhere, started again: the same files bit for bit, and nothing left over."""

from __future__ import annotations

import importlib
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import whole_files
from reliability.forking import count_changes, in_child, kill_after, kill_at, moments, wait

import nearfar
from nearfar.auditing import AuditSpec
from nearfar.classifiers import InputOptions
from nearfar.data import DataSpec, ScaleProtocol
from nearfar.training import FitSpec, ModelSpec, TrainerSpec, train
from nearfar.training.run_folder import LOCK

DATA = DataSpec("digits", protocol=ScaleProtocol(8, 8), train=30, validation=10, test=10)
FIT = FitSpec(epochs=3, batch_size=10)


def train_small(out):
    train(ModelSpec("cnn_small"), DATA, FIT, TrainerSpec(save_every=1), out=out)


def export_onnx(out):
    nearfar.export(whole_files.classifier(), out / "net.onnx")


def export_program(out):
    nearfar.export(whole_files.classifier(), out / "net.pt2")


def audit_small(out):
    spec = AuditSpec(scales=(0.5, 1.0), flips=0)
    nearfar.audit("cnn_small", DATA, spec, inputs=InputOptions(size=8, num_classes=10), out=out)


def convert_small(out):
    nearfar.convert("cnn_small", "si", inputs=InputOptions(size=16, num_classes=3), out=out)


WORK = {
    work.__name__: work
    for work in (train_small, export_onnx, export_program, audit_small, convert_small)
}


def files(folder):
    """Content of all files but those that hold times and names of temporary files."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.name != LOCK
        and path.is_file()
        and path.suffix not in (".html", ".json", ".ckpt", ".pt2")
    }


@pytest.fixture(scope="module", params=list(WORK))
def whole(request, tmp_path_factory):
    """A kind of work, what it writes undisturbed, how often it changes the disk and how long it takes."""
    work = WORK[request.param]
    out = tmp_path_factory.mktemp("whole")
    # In children alone: what a process with threads of torch's and onnxruntime's forks may wait for ever.
    for module in (
        "onnx",
        "onnxruntime",
        "onnxscript",
        "torch.export",
        "nearfar.training.train",
        "nearfar.deploy",
    ):
        importlib.import_module(module)
    for name in ("a", "b"):
        assert wait(in_child(lambda name=name: work(out / name))) == 0
    assert files(out / "a") == files(out / "b")
    started = time.monotonic()
    assert wait(in_child(lambda: work(out / "c"))) == 0
    seconds = time.monotonic() - started
    return work, out / "b", count_changes(lambda: work(out / "d"), out), seconds


def check_resumed(work, out, reference):
    log = out.with_suffix(".resumed")
    assert wait(in_child(lambda: work(out), log=log)) == 0, log.read_text()[-2000:]
    names = {path.relative_to(out) for path in out.rglob("*")}
    # An empty file: a run that was killed after its last step is not begun again, which would remove it.
    names.discard(Path(LOCK))
    assert names == {path.relative_to(reference) for path in reference.rglob("*")}
    assert files(out) == files(reference)


@pytest.mark.slow
def test_kills_before_and_after_every_change_of_the_disk(whole, tmp_path):
    work, reference, changes, _ = whole
    assert changes >= 3
    for number in range(1, changes + 1):
        for after in (False, True):
            out = tmp_path / f"{number}-{after}"
            assert kill_at(lambda out=out: work(out), number, after) == -signal.SIGKILL
            check_resumed(work, out, reference)


@pytest.mark.slow
def test_kills_at_random_moments(whole, tmp_path):
    work, reference, _, seconds = whole
    killed = 0
    for index, moment in enumerate(moments(40, seconds)):
        out = tmp_path / str(index)
        status, _ = kill_after(lambda out=out: work(out), moment)
        killed += status == -signal.SIGKILL
        check_resumed(work, out, reference)
    assert killed >= 20


def command(out):
    """The command line's training of :func:`train_small`, in a process of its own."""
    from nearfar.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [
        "nearfar",
        "train",
        "--model.name",
        "cnn_small",
        "--data",
        "digits",
        "--out",
        str(out),
    ]
    sys.argv += [
        "--data.protocol",
        "{canvas: 8, content: 8}",
        "--data.train",
        "30",
        "--data.validation",
        "10",
    ]
    sys.argv += [
        "--data.test",
        "10",
        "--fit",
        "{epochs: 3, batch_size: 10}",
        "--trainer.save_every",
        "1",
    ]
    sys.exit(main())


@pytest.mark.slow
def test_interruptions_at_random_moments(tmp_path):
    for _ in range(2):  # the second time everything is imported and compiled
        assert wait(in_child(lambda: train_small(tmp_path / "whole"))) == 0
    started = time.monotonic()
    assert wait(in_child(lambda: command(tmp_path / "command"))) == 0
    seconds = time.monotonic() - started
    interrupted, index = 0, 0
    draw = random.Random(0)
    while interrupted < 100:
        index += 1
        assert index < 500
        moment = seconds * draw.random()
        out, log = tmp_path / str(index), tmp_path / f"{index}.log"
        status, took = kill_after(lambda out=out: command(out), moment, signal.SIGINT, log)
        said = log.read_text()
        assert took < 2.5, (index, took)
        assert status in (0, 70, 130, -signal.SIGINT), (index, status, said)
        if status == 130:
            interrupted += 1
            assert "interrupted; what is finished is kept" in said
        elif status == 0:  # it had just ended
            assert (out / "weights.safetensors").exists()
        else:  # before the command began to listen
            assert status == -signal.SIGINT or said.startswith("KeyboardInterrupt"), said
            assert moment < 0.2 * seconds
        check_resumed(train_small, out, tmp_path / "whole")
