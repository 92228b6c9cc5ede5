"""A damaged state of an interrupted run is said in one line, or the run begins again."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

from nearfar.data import DataSpec, ScaleProtocol
from nearfar.errors import InputError
from nearfar.training import FitSpec, ModelSpec, train
from nearfar.training.run_folder import WEIGHTS, best_path, last_path
from nearfar.training.saved_state import check_fields, check_optimizer, check_tensors

DATA = DataSpec("digits", protocol=ScaleProtocol(8, 8), train=20, validation=10, test=10)
FIT = FitSpec(epochs=2, batch_size=10)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    train(ModelSpec("cnn_small"), DATA, FIT, out=out)
    (out / WEIGHTS).unlink()
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def put_back(files, out):
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        (
            last_path,
            lambda s: s["module"].update({"model.head.fc.bias": torch.zeros(2)}),
            "does not fit the network",
        ),
        (last_path, lambda s: s["module"].pop("model.head.fc.bias"), "does not fit the network"),
        (
            last_path,
            lambda s: s["optimizer"]["param_groups"].clear(),
            "not that of this run's optimiser",
        ),
        (
            last_path,
            lambda s: next(iter(s["optimizer"]["state"].values())).update(exp_avg=torch.zeros(3)),
            "not that of this run's optimiser",
        ),
        (
            last_path,
            lambda s: s["train_loss"].update(sum=torch.zeros(0)),
            "train_loss in .* does not fit",
        ),
        (
            last_path,
            lambda s: s["schedules"][0].update(last_epoch="x"),
            "are not those of this run",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused(interrupted, tmp_path, path, change, message):
    put_back(interrupted, tmp_path)
    state = torch.load(path(tmp_path), weights_only=True)
    change(state)
    torch.save(state, path(tmp_path))
    with pytest.raises(InputError, match=message):
        train(ModelSpec("cnn_small"), DATA, FIT, out=tmp_path)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (last_path, lambda s: s.pop("rows")),
        (last_path, lambda s: s.update(epoch="1")),
        (last_path, lambda s: s.update(best=[1, 2])),
        (best_path, lambda s: s.update(best=3)),
        (best_path, lambda s: s.update(weights={"a": 1})),
    ],
)
def test_a_state_of_other_types_is_said_and_the_run_begins_again(
    interrupted, tmp_path, caplog, path, change
):
    put_back(interrupted, tmp_path)
    state = torch.load(path(tmp_path), weights_only=True)
    change(state)
    torch.save(state, path(tmp_path))
    steps = []
    train(
        ModelSpec("cnn_small"),
        DATA,
        FIT,
        out=tmp_path,
        progress=lambda step: steps.append(step.done),
    )
    assert steps == [1, 2]
    assert re.search("cannot be read: .*(must be|lacks)", caplog.text)


def test_an_optimiser_s_own_state_fits():
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    check_optimizer(optimizer.state_dict(), torch.optim.AdamW(layer.parameters()), "it")
    other = copy.deepcopy(optimizer.state_dict())
    other["state"][7] = other["state"][0]
    with pytest.raises(InputError, match="it is not that of this run's optimiser"):
        check_optimizer(other, optimizer, "it")


def test_types_and_tensors_are_told_by_name():
    with pytest.raises(InputError, match=r"state\.a must be a whole number, got 'x'"):
        check_fields({"a": "x"}, {"a": int}, "state")
    with pytest.raises(InputError, match=r"state\.b lacks c"):
        check_fields({"b": {}}, {"b": {"c": int}}, "state")
    with pytest.raises(InputError, match="it does not fit the network: 'w' missing"):
        check_tensors({"w": torch.zeros(2)}, {"w": torch.zeros(3)}, "it")
