from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from torch import nn

from nearfar.data import DataSpec
from nearfar.errors import InputError
from nearfar.models import create_model
from nearfar.training import FitSpec, ModelSpec, Recipe, TrainerSpec, train
from nearfar.training.lightning_module import ClassifierModule
from nearfar.training.optimisation import make_optimizer, make_schedules

DATA = DataSpec(train=40, validation=20, test=20)


def rates(out, **fit):
    """The learning rate that each epoch of a tiny training began with, as it logged it."""
    settings = {"optimizer": "momentum", "lr": 0.1, "epochs": 6, "batch_size": 20, **fit}
    train(ModelSpec("cnn_small"), DATA, FitSpec(**settings), out=out)
    with (out / "metrics.csv").open() as file:
        return [float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]]


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        ({"schedule": "constant"}, [0.1] * 6),
        ({"schedule": "steps", "milestones": (2, 4)}, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]),
        ({"schedule": "steps", "milestones": (3,), "factor": 0.5}, [0.1] * 3 + [0.05] * 3),
        (
            {"schedule": "cosine"},
            [0.05 * (1 + math.cos(math.pi * epoch / 6)) for epoch in range(6)],
        ),
        (
            {"schedule": "constant", "warmup_epochs": 2, "warmup_lr": 0.01},
            [0.01, 0.01, 0.1, 0.1, 0.1, 0.1],
        ),
        (  # milestones count the warm-up in
            {"schedule": "steps", "milestones": (3, 5), "warmup_epochs": 1, "warmup_lr": 0.01},
            [0.01, 0.1, 0.1, 0.01, 0.01, 0.001],
        ),
        (
            {"schedule": "cosine", "warmup_epochs": 2, "warmup_lr": 0.03},
            [0.03, 0.03, *(0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4))],
        ),
    ],
)
def test_each_epoch_has_the_rate_that_the_recipe_says(tmp_path, fit, expected):
    assert rates(tmp_path, **fit) == pytest.approx(expected, rel=1e-6)


# Errors of seven epochs, and after which of them the rate falls.
@pytest.mark.parametrize(
    ("errors", "patience", "expected"),
    [
        ([0.5, 0.4, 0.4, 0.4, 0.3, 0.35, 0.3], 1, [0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]),
        ([0.5, 0.4, 0.4, 0.39, 0.3, 0.35, 0.2], 0, [0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001]),
    ],
)
def test_plateau_falls_when_the_validation_error_stops_falling(
    tmp_path, monkeypatch, errors, patience, expected
):
    remaining = iter(errors)

    def log_accuracy(self):
        self.log("validation/accuracy", 1 - next(remaining))

    def silent(self, batch, batch_idx):
        self.log("validation/loss", torch.tensor(1.0), batch_size=len(batch[1]))

    monkeypatch.setattr(ClassifierModule, "validation_step", silent)
    monkeypatch.setattr(ClassifierModule, "on_validation_epoch_end", log_accuracy)
    rate_by_epoch = rates(tmp_path, schedule="plateau", patience=patience, epochs=7)
    assert rate_by_epoch == pytest.approx(expected, rel=1e-6)


def test_plateau_after_a_warm_up(tmp_path):
    rate_by_epoch = rates(tmp_path, schedule="plateau", warmup_epochs=2, warmup_lr=0.02, epochs=4)
    assert rate_by_epoch == pytest.approx([0.02, 0.02, 0.1, 0.1], rel=1e-6)


def test_weight_decay_covers_all_weights_or_leaves_out_biases_and_norms():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    some = make_optimizer(model, FitSpec(optimizer="momentum", weight_decay=1e-4)).param_groups
    decayed = {id(p) for group in some if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(model[0].weight), id(model[3].weight)}
    fit = FitSpec(optimizer="momentum", weight_decay=1e-4, decay_all=True)
    (every,) = make_optimizer(model, fit).param_groups
    assert every["weight_decay"] == 1e-4
    assert {id(p) for p in every["params"]} == {id(p) for p in model.parameters()}


def test_momentum_is_the_papers_velocity():
    weight = nn.Parameter(torch.tensor([1.0]))
    holder = nn.ParameterList([weight])
    fit = FitSpec(
        optimizer="momentum", schedule="constant", lr=0.1, momentum=0.8, weight_decay=0.5,
        decay_all=True,
    )  # fmt: skip
    optimizer = make_optimizer(holder, fit)
    w, v = 1.0, 0.0
    for gradient in (1.0, -2.0, 0.5):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        v = 0.8 * v + gradient + 0.5 * w
        w -= 0.1 * v
    assert float(weight.detach()) == pytest.approx(w, rel=1e-6)
    own = make_optimizer(holder, FitSpec(optimizer="momentum")).param_groups[0]
    assert (own["momentum"], own["nesterov"]) == (0.9, False)
    assert make_optimizer(holder, FitSpec(optimizer="sgd")).param_groups[0]["nesterov"]


def test_onecycle_leaves_a_given_momentum_alone_and_cycles_its_own():
    holder = nn.ParameterList([nn.Parameter(torch.ones(1))])
    for momentum, expected in ((0.7, [0.7, 0.7]), (None, [0.85, 0.95])):
        fit = FitSpec(optimizer="momentum", momentum=momentum)
        optimizer = make_optimizer(holder, fit)
        (schedule,) = make_schedules(optimizer, fit, steps=10)
        momenta = []
        for _ in range(9):
            momenta.append(optimizer.param_groups[0]["momentum"])
            optimizer.step()
            schedule["scheduler"].step()
        assert [min(momenta), max(momenta)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        ({"schedule": "step"}, "schedule must be one of 'onecycle', 'constant', 'steps', .* got 'step'"),
        ({"momentum": 1.0}, "momentum must be from 0 to below 1, got 1.0"),
        ({"decay_all": True, "weight_decay": 0.0}, "decay_all has no effect with weight_decay=0"),
        ({"schedule": "steps"}, r"schedule='steps' needs milestones, .* got \(\)"),
        ({"schedule": "steps", "milestones": (9, 3)}, "ascending"),
        ({"schedule": "steps", "milestones": (3, 15)}, "below epochs=15"),
        ({"milestones": (3,)}, r"belong to schedule='steps', got milestones=\(3,\) with schedule='onecycle'"),
        ({"schedule": "cosine", "factor": 0.1}, "factor belongs to schedule='steps' and 'plateau'"),
        ({"schedule": "plateau", "factor": 1.0}, "lies between 0 and 1, got factor=1.0"),
        ({"schedule": "steps", "milestones": (3,), "patience": 2}, "patience belongs to schedule='plateau'"),
        ({"schedule": "plateau", "patience": -1}, "at least 0 epochs, got patience=-1"),
        ({"schedule": "constant", "warmup_epochs": 1}, "needs a warmup_lr above 0.* got warmup_lr=None"),
        ({"schedule": "constant", "warmup_lr": 0.1}, "warmup_epochs=0"),
        ({"warmup_lr": 0.1, "warmup_epochs": 1}, "a schedule other than 'onecycle'"),
        ({"schedule": "constant", "warmup_lr": 0.1, "warmup_epochs": 15}, "below epochs"),
        (
            {"schedule": "steps", "milestones": (1,), "warmup_lr": 0.1, "warmup_epochs": 1},
            "above warmup_epochs=1",
        ),
    ],
)  # fmt: skip
def test_refusals(fit, message):
    with pytest.raises(InputError, match=message):
        FitSpec(**fit)


def test_refusals_of_optimizers():
    net = create_model("cnn_small", in_chans=1)
    with pytest.raises(
        InputError, match="'adamw' takes no momentum, got momentum=0.9; leave it out"
    ):
        ClassifierModule(net, FitSpec(momentum=0.9), 10)
    with pytest.raises(InputError, match="the optimizer 'sgd' cannot be made: Nesterov"):
        make_optimizer(net, FitSpec(optimizer="sgd", momentum=0.0))


def test_a_recipe_with_everything_in_it_goes_through_plain_data():
    fit = FitSpec(
        schedule="steps", epochs=164, milestones=(82, 123), momentum=0.9, optimizer="momentum",
        warmup_epochs=1, warmup_lr=0.01, lr=0.1, decay_all=True,
    )  # fmt: skip
    data = DataSpec("cifar10", split="official", augment="crop_flip", normalize="standard")
    recipe = Recipe(ModelSpec(), data.explicit(), fit, 0, TrainerSpec())
    assert Recipe.from_dict(recipe.as_dict()) == recipe
    assert recipe.as_dict()["fit"]["milestones"] == [82, 123]


def test_fields_that_a_record_leaves_out_have_their_defaults():
    record = {
        "model": {"name": "cnn_small", "options": {}},
        "data": {
            "source": "digits",
            "root": None,
            "protocol": {
                "canvas": 28,
                "content": 12,
                "train_scales": [1.0],
                "test_scales": [1.0, 2.0],
                "interpolation": "bicubic",
            },
            "train": 900,
            "validation": 300,
            "test": 0,
            "split_seed": 0,
            "split": "seed",
        },
        "fit": {
            "epochs": 15,
            "batch_size": 64,
            "lr": 0.01,
            "weight_decay": 0.05,
            "optimizer": "adamw",
            "schedule": "onecycle",
        },
        "seed": 0,
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "num_nodes": 1,
            "strategy": "auto",
            "precision": "32-true",
        },
    }
    recipe = Recipe.from_dict(record)
    assert recipe.fit == FitSpec()
    assert recipe.data == recipe.data.explicit()
    assert recipe.data.train == 900
    del record["data"]["split"]  # whose default depends on the files
    with pytest.raises(
        InputError, match="not a record of a nearfar training run: data lacks split"
    ):
        Recipe.from_dict(record)


def test_velocity_is_the_papers():
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    spec = FitSpec(optimizer="velocity", lr=0.1, weight_decay=0.0005, decay_all=True)
    optimizer = make_optimizer(nn.ParameterList([weight]), spec)
    w, v = np.array([1.0, -2.0]), np.zeros(2)
    for gradient, rate in ((1.0, 0.1), (-2.0, 0.1), (0.5, 0.01), (3.0, 0.01), (0.0, 0.2)):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = torch.full((2,), gradient, dtype=torch.float64)
        optimizer.step()
        v = 0.9 * v - 0.0005 * rate * w - rate * gradient
        w = w + v
        assert weight.detach().numpy() == pytest.approx(w, rel=1e-12)
        assert optimizer.state[weight]["velocity"].numpy() == pytest.approx(v, rel=1e-12)


def test_velocity_takes_closures_and_leaves_out_what_has_no_gradient():
    used, idle = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = make_optimizer(
        nn.ParameterList([used, idle]), FitSpec(optimizer="velocity", lr=0.5)
    )

    def closure():
        optimizer.zero_grad()
        loss = (used**2).sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 1.0
    assert float(used.detach()) == pytest.approx(0.0)
    assert float(idle.detach()) == 1.0
    with pytest.raises(InputError, match="PaperSGD needs lr and weight_decay of at least 0"):
        type(optimizer)([used], lr=-1.0)
