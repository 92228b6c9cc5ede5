"""A loss that is no finite number stops a run before its weights change, or its batch is left out."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from safetensors.torch import load_file

from nearfar.data import DataSpec, LabelledImages, ScaleDataModule, ScaleProtocol, register_source
from nearfar.data.sources import registry
from nearfar.errors import InputError
from nearfar.training import FitSpec, ModelSpec, TrainerSpec, train
from nearfar.training.run_folder import last_path

DATA = DataSpec("not_finite", protocol=ScaleProtocol(8, 8), train=24, validation=10, test=10)
FIT = FitSpec(epochs=2, batch_size=6)
EACH = TrainerSpec(save_every=1)
BAD = [0]


def not_finite(root):
    """Noise; one image holds a NaN."""
    images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images[BAD[0], 0, 3, 3] = math.nan
    return LabelledImages(images, torch.arange(60) % 2, ("a", "b"))


@pytest.fixture(autouse=True)
def bad(monkeypatch):
    """A training image."""
    monkeypatch.setattr(registry, "_SOURCES", dict(registry._SOURCES))
    register_source("not_finite")(not_finite)
    BAD[0] = int(ScaleDataModule(DATA, 6, 0).indices["train"][11])
    return BAD[0]


def test_the_run_stops_and_names_the_images(tmp_path, bad):
    with pytest.raises(
        InputError, match=r"was nan in epoch 1, batch \d: 1 of its 6 images hold numbers that"
    ):
        train(ModelSpec("cnn_small"), DATA, FIT, EACH, out=tmp_path)
    record = json.loads((tmp_path / "not-finite.json").read_text())
    assert record["images_not_finite"] == [bad]
    assert bad in record["images"]
    assert len(record["images"]) == 6
    if record["batch"] > 1:  # the weights before it are kept, and are numbers
        state = torch.load(last_path(tmp_path), weights_only=True)
        assert state["steps"] == record["batch"] - 1
        assert all(t.isfinite().all() for t in state["module"].values())


def test_the_batch_is_left_out_where_that_is_asked_for(tmp_path, caplog):
    fit = FitSpec(epochs=2, batch_size=6, not_finite="skip")
    trained = train(ModelSpec("cnn_small"), DATA, fit, out=tmp_path)
    assert len(re.findall(r"epoch [12]: batch \d left out, its loss is nan", caplog.text)) == 2
    assert all(tensor.isfinite().all() for tensor in load_file(trained.path).values())
    averages = torch.load(last_path(tmp_path), weights_only=True)["optimizer"]["state"]
    assert {int(average["step"]) for average in averages.values()} == {6}, (
        "3 of 4 batches, 2 epochs"
    )


def test_divergence_is_not_the_images_fault(tmp_path, bad):
    BAD[0] = int(ScaleDataModule(DATA, 6, 0).indices["test"][0])
    fit = FitSpec(epochs=1, batch_size=6, lr=1e30, optimizer="sgd", schedule="constant")
    with pytest.raises(
        InputError, match="its images are finite numbers, so that training diverged"
    ):
        train(ModelSpec("cnn_small"), DATA, fit, out=tmp_path)
    assert json.loads((tmp_path / "not-finite.json").read_text())["images_not_finite"] == []


def test_several_processes_cannot_leave_out_a_batch_of_one(tmp_path):
    fit = FitSpec(epochs=1, batch_size=6, not_finite="skip")
    with pytest.raises(
        InputError, match="not_finite='skip' leaves out a batch in one process, and 2 share"
    ):
        train(ModelSpec("cnn_small"), DATA, fit, TrainerSpec(devices=2), out=tmp_path)
    with pytest.raises(InputError, match="not_finite must be one of 'stop', 'skip', got 'go on'"):
        FitSpec(not_finite="go on")
