"""A run that was killed ends as if it had not been."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import random
import re
import time
from dataclasses import replace

import dropping
import pytest
import torch

from nearfar import version
from nearfar.data import DataSpec, ScaleProtocol
from nearfar.errors import InputError
from nearfar.training import (
    FitSpec,
    ModelSpec,
    TrainerSpec,
    checkpoint_callback,
    run_folder,
    train,
)
from nearfar.training.checkpoint_callback import ExactCheckpoint
from nearfar.training.lightning_module import ClassifierModule
from nearfar.training.run_folder import MetricsFile

#: The module, whose name in the package is the function's.
TRAIN = importlib.import_module("nearfar.training.train")
# 5 batches an epoch, the last a small one.
MODEL = ModelSpec("dropping_cnn")
DATA = DataSpec(
    protocol=ScaleProtocol(16, 12, train_scales=(0.75, 1.0)), train=36, validation=20, test=20,
    normalize="standard", augment="crop_flip", pad=2, rotate=20, shear=10, stretch=1.2,
    exchange_sizes=(0.5, 2),
)  # fmt: skip
FIT = FitSpec(
    epochs=4, batch_size=8, lr=0.05, optimizer="momentum", schedule="plateau", patience=0,
    factor=0.5, ema=0.8,
)  # fmt: skip
EACH = TrainerSpec(save_every=2)


class KilledError(Exception):
    """Stands for a kill: nothing after it runs, what is on the disk stays."""


def run(out, trainer=EACH, steps=None, fit_spec=FIT):
    report = (lambda step: steps.append(step.done)) if steps is not None else (lambda step: None)
    return train(MODEL, DATA, fit_spec, trainer, seed=3, out=out, progress=report)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    steps = []
    done = run(tmp_path_factory.mktemp("runs") / "whole", steps=steps)
    assert steps == [1, 2, 3, 4]
    return done


def killer(monkeypatch, target, name, call, after=False):
    """Makes the ``call``-th call of a function raise, before or after its work."""
    real = getattr(target, name)
    calls = []

    def until(*args, **kwargs):
        calls.append(1)
        if len(calls) == call and not after:
            raise KilledError
        answer = real(*args, **kwargs)
        if len(calls) == call:
            raise KilledError
        return answer

    monkeypatch.setattr(target, name, until)


def same(one, two):
    assert one.path.read_bytes() == two.path.read_bytes()
    name = "metrics.csv"
    assert (one.path.parent / name).read_text() == (two.path.parent / name).read_text()


@pytest.mark.parametrize(
    ("target", "name", "call", "after", "reported"),
    [
        (ClassifierModule, "training_step", 2, False, [1, 2, 3, 4]),  # before anything was saved
        (ClassifierModule, "training_step", 9, False, [2, 3, 4]),  # in epoch 2, after a save within
        (ClassifierModule, "training_step", 10, True, [2, 3, 4]),  # the last batch of epoch 2
        (ClassifierModule, "validation_step", 5, False, [2, 3, 4]),  # in the middle of validating
        (ClassifierModule, "on_train_epoch_end", 3, False, [3, 4]),
        (ExactCheckpoint, "on_train_epoch_start", 3, False, [2, 3, 4]),
        (ExactCheckpoint, "on_train_epoch_start", 3, True, [3, 4]),
        (checkpoint_callback, "write_state", 4, True, [2, 3, 4]),
        (ExactCheckpoint, "on_validation_end", 1, True, [1, 2, 3, 4]),  # the best is written, no last
        (MetricsFile, "log_metrics", 3, True, [2, 3, 4]),  # one of the epoch's two rows is there
        (MetricsFile, "log_metrics", 4, True, [2, 3, 4]),
        (ExactCheckpoint, "on_train_end", 1, False, [4]),
        (TRAIN, "save_weights", 1, False, []),  # all done but the weights
    ],
)  # fmt: skip
def test_a_killed_run_ends_as_if_it_had_not_been(
    whole, tmp_path, monkeypatch, target, name, call, after, reported
):
    with monkeypatch.context() as patch:
        killer(patch, target, name, call, after)
        with pytest.raises(KilledError):
            run(tmp_path)
    steps = []
    same(run(tmp_path, steps=steps), whole)
    assert steps == reported


@pytest.mark.parametrize("call", [1, 2, 3, 4, 7])
def test_a_kill_while_a_state_is_written_leaves_the_one_before(whole, tmp_path, monkeypatch, call):
    """Those within epochs, those of whole epochs, and the best."""
    real = torch.save
    calls = []

    def half(state, path):
        calls.append(1)
        if len(calls) == call:
            real(state, path)
            path.write_bytes(path.read_bytes()[:1000])
            raise KilledError
        real(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.torch, "save", half)
        with pytest.raises(KilledError):
            run(tmp_path)
    left = list((tmp_path / "checkpoints").iterdir())
    assert len(left) == min(call - 1, 1) + (
        call > 3
    )  # last.ckpt, from the third write on best.ckpt
    for path in left:
        torch.load(path, weights_only=True)
    same(run(tmp_path), whole)


def test_no_image_is_shown_again(tmp_path, monkeypatch):
    batches = []
    real = ClassifierModule.training_step

    def spy(self, batch, batch_idx):
        batches.append((self.current_epoch, batch_idx, batch[1].tolist(), float(batch[0].sum())))
        return real(self, batch, batch_idx)

    monkeypatch.setattr(ClassifierModule, "training_step", spy)
    run(tmp_path / "whole")
    expected = batches.copy()
    assert [batch[:2] for batch in expected] == [
        (epoch, batch) for epoch in range(4) for batch in range(5)
    ]
    batches.clear()
    with monkeypatch.context() as patch:
        killer(patch, ExactCheckpoint, "on_train_batch_end", 9, after=True)  # which saves
        with pytest.raises(KilledError):
            run(tmp_path / "killed")
    run(tmp_path / "killed")
    assert batches == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"schedule": "onecycle", "factor": None, "patience": None, "optimizer": "adamw", "ema": None},
        {"schedule": "steps", "milestones": (2, 3), "patience": None, "optimizer": "velocity"},
        {"schedule": "cosine", "factor": None, "patience": None, "warmup_epochs": 1, "warmup_lr": 0.01},
        {"warmup_epochs": 2, "warmup_lr": 0.01, "accumulate": 2, "clip": 0.5},
        {"mixup": 0.4, "cutmix": 0.5, "label_smoothing": 0.1, "keep": "accuracy"},
        {"keep": "last", "optimizer": "adopt"},
    ],
)  # fmt: skip
def test_every_schedule_and_option_goes_on(tmp_path, monkeypatch, changed):
    spec = replace(FIT, **changed)
    once = run(tmp_path / "once", fit_spec=spec)
    for call in (8, 6, 5):  # three kills: within epochs 2, 3 and 4
        with monkeypatch.context() as patch:
            killer(patch, ClassifierModule, "training_step", call)
            with pytest.raises(KilledError):
                run(tmp_path / "killed", fit_spec=spec)
    same(run(tmp_path / "killed", fit_spec=spec), once)


@pytest.mark.parametrize("call", [8, 11])
def test_worker_processes_go_on_at_the_same_image(whole, tmp_path, monkeypatch, call):
    data = replace(DATA, workers=1)
    with monkeypatch.context() as patch:
        killer(patch, ClassifierModule, "training_step", call)
        with pytest.raises(KilledError):
            train(MODEL, data, FIT, EACH, seed=3, out=tmp_path)
    again = train(MODEL, data, FIT, EACH, seed=3, out=tmp_path)
    for key, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, whole.model.state_dict()[key])


def test_saving_within_epochs_changes_nothing(whole, tmp_path):
    plain = run(tmp_path, TrainerSpec())
    for key, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, whole.model.state_dict()[key])


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_damaged_state_is_said_and_begun_again(whole, tmp_path, monkeypatch, caplog, name):
    with monkeypatch.context() as patch:
        killer(patch, ClassifierModule, "training_step", 12)
        with pytest.raises(KilledError):
            run(tmp_path)
    damaged = tmp_path / "checkpoints" / name
    damaged.write_bytes(damaged.read_bytes()[:500])
    steps = []
    with caplog.at_level(logging.WARNING, "nearfar"):
        same(run(tmp_path, steps=steps), whole)
    assert steps == [1, 2, 3, 4]
    assert f"{damaged} cannot be read" in caplog.text
    assert "training starts from the beginning" in caplog.text


def test_a_state_of_other_versions_is_gone_on_with_and_said(tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        killer(patch, ClassifierModule, "training_step", 12)
        with pytest.raises(KilledError):
            run(tmp_path)
    monkeypatch.setattr(version, "__version__", "99")
    steps = []
    with caplog.at_level(logging.WARNING, "nearfar"):
        run(tmp_path, steps=steps)
    assert steps == [3, 4]
    assert "goes on with {'nearfar': '99'" in caplog.text


def test_a_finished_run_of_other_versions_is_not_mistaken_for_another_run(tmp_path, monkeypatch):
    spec = FitSpec(epochs=1, batch_size=8)
    finished = run(tmp_path, fit_spec=spec)
    monkeypatch.setattr(version, "__version__", "99")
    with pytest.raises(
        InputError,
        match=r"finished run of these settings, made with nearfar "
        rf"{re.escape(finished.record['nearfar'])} and torch .*, and this is nearfar 99 "
        r"and torch .*; delete the folder to train it again, or audit",
    ):
        run(tmp_path, fit_spec=spec)


def test_a_best_epoch_that_is_not_found_again_is_told_with_its_own_figures(tmp_path, monkeypatch):
    """Killed between the two files, on hardware that does not repeat bits."""
    with monkeypatch.context() as patch:
        patch.setattr(ExactCheckpoint, "_is_best", lambda self, loss, accuracy: True)
        killer(patch, ExactCheckpoint, "on_validation_end", 2, after=True)
        with pytest.raises(KilledError):
            run(tmp_path)
    best = run_folder.read_best(tmp_path)
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert (best[0].epoch, last["best"]["epoch"]) == (1, 0)
    monkeypatch.setattr(ExactCheckpoint, "_is_best", lambda self, loss, accuracy: False)
    record = run(tmp_path).record
    assert record["best_epoch"] == 2
    assert record["validation_loss"] == best[0].loss
    assert record["validation_accuracy"] == best[0].accuracy


def test_what_killed_writes_left_is_swept_up(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killer(patch, ClassifierModule, "training_step", 7)
        with pytest.raises(KilledError):
            run(tmp_path)
    left = [
        tmp_path / "checkpoints" / ".last.ckpt.other_host-3-x3.ckpt",
        tmp_path / ".metrics.csv.other_host-1-9_.csv",
        tmp_path / ".weights.safetensors.host-12-1.safetensors",
    ]
    for path in left:
        path.write_bytes(b"half")
    run(tmp_path)
    assert not any(path.exists() for path in left)
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_settings_that_a_config_leaves_out_have_their_defaults(tmp_path, monkeypatch):
    spec = FitSpec(epochs=1, batch_size=8)
    with monkeypatch.context() as patch:
        killer(patch, ClassifierModule, "training_step", 2)
        with pytest.raises(KilledError):
            run(tmp_path, TrainerSpec(), fit_spec=spec)
    config = tmp_path / "config.yaml"
    new = ("accumulate", "ema", "clip", "mixup", "cutmix", "label_smoothing", "init", "keep", "compile",
           "save_every", "tensorboard")  # fmt: skip
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(x for x in lines if x.split(":")[0].strip() not in new))
    assert run(tmp_path, TrainerSpec(), fit_spec=spec).record["best_epoch"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "points"), [(1, 20), (2, 4)])
def test_kills_at_random_points(tmp_path, devices, points):
    """The real thing: SIGKILL, whatever is going on, twice in each run."""
    # Processes that nearfar starts know nearfar's and timm's nets alone.
    model = MODEL if devices == 1 else ModelSpec("cnn_small", {"norm": True})
    spec = replace(FIT, epochs=12 * devices, mixup=0.2)
    trainer = TrainerSpec(devices=devices, save_every=2)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["nearfar.training", "dropping"])  # imported once for all

    def start(out):
        process = processes.Process(
            target=dropping.train_it, args=(model, DATA, spec, trainer, 3, out)
        )
        process.start()
        return process

    def finish(out):
        process = start(out)
        process.join(300)
        assert process.exitcode == 0

    def epochs_told(out):
        rows = out / "metrics.csv"
        return (rows.read_text().count("\n") - 1) // 2 if rows.exists() else 0

    def await_epochs(process, out, epochs):
        while process.exitcode is None and epochs_told(out) < epochs:
            time.sleep(0.002)

    def strike(out, epochs, later):
        """Whether the run could be killed so many seconds after it had told of so many epochs more."""
        process = start(out)
        await_epochs(process, out, epochs_told(out) + epochs)
        process.join(later)
        struck = process.exitcode is None
        if struck:
            process.kill()
        process.join()
        return struck

    finish(tmp_path / "warm")  # starts the server
    once = tmp_path / "once"
    process = start(once)
    await_epochs(process, once, 1)
    begun = time.monotonic()
    process.join()
    assert process.exitcode == 0
    epoch = (time.monotonic() - begun) / (spec.epochs - 1)
    draw = random.Random(7)
    killed, runs = 0, 0
    # Where the machine's speed changes, a run may end before it is struck: that is no kill.
    while killed < 2 * points and runs < 2 * points:
        out = tmp_path / f"run{runs}"
        for _ in range(2):
            killed += strike(out, draw.randint(1, spec.epochs // 2 - 2), draw.random() * epoch)
            assert (out / "checkpoints" / "last.ckpt").exists()
        finish(out)
        for name in ("weights.safetensors", "metrics.csv"):
            assert (out / name).read_bytes() == (once / name).read_bytes(), (runs, name)
        runs += 1
    assert killed >= 2 * points
