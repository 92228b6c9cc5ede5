"""What each option of a recipe does to images, weights and files."""

from __future__ import annotations

import copy
import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nearfar.data import DataSpec, ScaleProtocol
from nearfar.errors import InputError
from nearfar.layers import ScaleConv2d, SIConv2d
from nearfar.models import create_model
from nearfar.models.initialisation import draw_weights
from nearfar.training import (
    FitSpec,
    ModelSpec,
    TrainerSpec,
    load_checkpoint,
    specs,
    train,
)
from nearfar.training.lightning_module import ClassifierModule, Mixing, average_of
from nearfar.training.run_folder import WEIGHTS
from nearfar.training.seeding import seed_step

DATA = DataSpec(protocol=ScaleProtocol(16, 12), train=36, validation=20, test=20)
PLAIN = TrainerSpec()
FIT = FitSpec(epochs=2, batch_size=12, lr=0.05, optimizer="momentum", schedule="constant")


def weights(out, trainer=PLAIN, model="cnn_small", **changed):
    return train(ModelSpec(model), DATA, replace(FIT, **changed), trainer, 1, out)


def differ(one, two):
    pairs = zip(one.model.parameters(), two.model.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def test_accumulating_is_the_larger_batch(tmp_path):
    """Also where the last update has fewer batches, and its last batch fewer images: 36 = 2 · 15 + 6."""
    large = weights(tmp_path / "large", batch_size=20)
    small = weights(tmp_path / "small", batch_size=10, accumulate=2)
    assert differ(large, small) < 1e-6
    assert differ(large, weights(tmp_path / "third", batch_size=5, accumulate=4)) < 1e-6
    assert differ(large, weights(tmp_path / "other", batch_size=10)) > 1e-3


def test_the_running_mean_is_the_formula_s_and_shared_weights_move_once():
    torch.manual_seed(0)
    one = nn.Linear(3, 3)
    net = nn.Sequential(one, nn.BatchNorm1d(3), one)
    mean = average_of(net, 0.9)
    expected = {k: v.clone() for k, v in net.state_dict().items()}
    for _ in range(3):
        for tensor in net.state_dict().values():
            tensor.add_(1)
        mean.update_parameters(net)
        for k, v in net.state_dict().items():
            expected[k] = 0.9 * expected[k] + 0.1 * v if v.is_floating_point() else v.clone()
    for k, v in mean.module.state_dict().items():
        torch.testing.assert_close(v, expected[k])
    assert mean.module[0] is mean.module[2]
    assert not any(p.requires_grad for p in mean.parameters())


def test_the_mean_of_the_weights_is_what_is_validated_and_kept(tmp_path, monkeypatch):
    states = []
    real = ClassifierModule.optimizer_step

    def spy(self, *args, **kwargs):
        real(self, *args, **kwargs)
        states.append(copy.deepcopy(self.model.state_dict()))

    monkeypatch.setattr(ClassifierModule, "optimizer_step", spy)
    plain = weights(tmp_path / "plain", keep="last")
    assert len(states) == 6
    torch.manual_seed(1)
    by_hand = create_model("cnn_small", num_classes=10, in_chans=1).state_dict()
    for state in states:
        by_hand = {k: 0.8 * by_hand[k] + 0.2 * v for k, v in state.items()}
    averaged = weights(tmp_path / "mean", keep="last", ema=0.8)
    for k, v in averaged.model.state_dict().items():
        torch.testing.assert_close(v, by_hand[k])
    assert differ(plain, averaged) > 1e-3
    from nearfar.data import ScaleDataModule

    data = ScaleDataModule(DATA)
    with torch.inference_mode():
        loss = F.cross_entropy(
            averaged.model(data.images("validation", 1.0)), data.labels("validation")
        )
    assert float(loss) == pytest.approx(averaged.record["validation_loss"], rel=1e-5)


def test_gradients_are_clipped_to_the_norm(tmp_path, monkeypatch):
    norms = []
    real = ClassifierModule.on_before_optimizer_step

    def spy(self, optimizer):
        norms.append(float(nn.utils.get_total_norm([p.grad for p in self.model.parameters()])))
        return real(self, optimizer)

    monkeypatch.setattr(ClassifierModule, "on_before_optimizer_step", spy)
    one = weights(tmp_path / "free", optimizer="momentum", momentum=0.0, weight_decay=0.0, epochs=1)
    assert min(norms) > 0.05
    monkeypatch.undo()
    tight = weights(
        tmp_path / "clipped", momentum=0.0, weight_decay=0.0, epochs=1, clip=0.05, batch_size=36
    )
    torch.manual_seed(1)
    fresh = create_model("cnn_small", num_classes=10, in_chans=1)
    moved = [a - b for a, b in zip(tight.model.parameters(), fresh.parameters(), strict=True)]
    assert float(nn.utils.get_total_norm(moved)) == pytest.approx(0.05 * FIT.lr, rel=1e-3)
    assert differ(one, tight) > 0


def mixing(**options):
    return Mixing(FitSpec(**options), 3)


def test_smoothed_labels_are_the_formula_s():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 2])
    soft = F.one_hot(labels, 3) * 0.7 + 0.1
    expected = -(soft * logits.log_softmax(1)).sum(1).mean()
    mix = mixing(label_smoothing=0.3)
    torch.testing.assert_close(mix.loss(logits, mix.mix(logits, labels)[1]), expected)


@pytest.mark.parametrize("count", [1, 4, 5])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_batches_are_mixed_with_their_reverse_and_labels_in_the_same_shares(kind, count):
    images = torch.rand(count, 2, 8, 8) + torch.arange(count).view(-1, 1, 1, 1) * 10
    labels = torch.arange(count) % 3
    np.random.seed(4)  # noqa: NPY002 (timm draws from it)
    mixed, targets = mixing(**{kind: 1.0, "label_smoothing": 0.3}).mix(images.clone(), labels)
    hard = F.one_hot(labels, 3) * 0.7 + 0.1
    middle = count // 2 if count % 2 else None
    shares = []
    for i in range(count):
        if i == middle:
            assert torch.equal(mixed[i], images[i])
            torch.testing.assert_close(targets[i], hard[i])
            continue
        j = count - 1 - i
        if kind == "mixup":
            part = (mixed[i] - images[j]) / (images[i] - images[j])
            share = float(part.mean())
            torch.testing.assert_close(mixed[i], share * images[i] + (1 - share) * images[j])
        else:
            own = (mixed[i] == images[i]).all(0)
            assert torch.equal(mixed[i][:, ~own], images[j][:, ~own])
            share = float(own.float().mean())
        torch.testing.assert_close(targets[i], share * hard[i] + (1 - share) * hard[j])
        shares.append(share)
    assert len({round(s, 4) for s in shares}) <= 1
    assert all(0 < s < 1 for s in shares)


def test_mixed_training_differs_and_repeats(tmp_path):
    runs = [
        weights(tmp_path / str(i), **changed)
        for i, changed in enumerate(
            ({}, {"mixup": 0.5}, {"cutmix": 0.5}, {"label_smoothing": 0.2}, {"mixup": 0.5})
        )
    ]
    for i in range(4):
        assert all(differ(runs[i], runs[j]) > 1e-4 for j in range(i))
    assert differ(runs[1], runs[4]) == 0


def drawn_now():
    return float(torch.rand(())), float(np.random.rand())  # noqa: NPY002 (the global one is meant)


def test_steps_draw_numbers_of_their_own():
    drawn = set()
    steps = [(s, e, b, p) for s in (0, 1) for e in (0, 1) for b in (0, 1) for p in (0, 1)]
    for step in steps:
        seed_step(*step)
        first = drawn_now()
        seed_step(*step)
        assert first == drawn_now()
        drawn.add(first)
    assert len({t for t, _ in drawn}) == 16
    assert len({n for _, n in drawn}) == 8  # what is drawn for a batch is the same in all processes
    assert not {t for t, _ in drawn} & {n for _, n in drawn}


def test_first_weights():
    def net():
        return nn.Sequential(
            nn.Conv2d(8, 64, 5),
            SIConv2d(64, 64, 3),
            ScaleConv2d(64, 64, 3, scale_extent=2),
            nn.Linear(400, 100),
            nn.BatchNorm2d(4),
        )

    plain = net()
    before = copy.deepcopy(plain.state_dict())
    draw_weights(plain, "default")
    assert all(torch.equal(v, before[k]) for k, v in plain.state_dict().items())
    for init, expected in (
        ("he", [math.sqrt(2 / n) for n in (200, 576, 1152, 400)]),
        ("normal", [0.01] * 4),
    ):
        drawn = net()
        draw_weights(drawn, init)
        for module, std in zip(drawn, expected, strict=False):
            assert float(module.weight.detach().std()) == pytest.approx(std, rel=0.03)
            assert abs(float(module.weight.detach().mean())) < std * 0.05
            assert not module.bias.any()
        assert (drawn[4].weight == 1).all()


def test_the_recipe_s_first_weights_are_trained(tmp_path):
    tiny = {"lr": 1e-9, "epochs": 1}
    drawn = weights(tmp_path, init="normal", **tiny).model
    assert float(drawn.stages[1][1].weight.detach().std()) == pytest.approx(0.01, rel=0.1)


def test_whose_weights_are_kept(tmp_path, monkeypatch):
    losses, right = [3.0, 1.0, 2.0, 1.5], [0.1, 0.2, 0.4, 0.4]
    figures = []

    def log_figures(self, batch, batch_idx):
        size = len(batch[1])
        self.log("validation/loss", torch.tensor(figures[self.current_epoch][0]), batch_size=size)
        self.log("validation/accuracy", figures[self.current_epoch][1], batch_size=size)

    figures = list(zip(losses, right, strict=True))
    monkeypatch.setattr(ClassifierModule, "validation_step", log_figures)
    runs = {}
    for keep in ("best", "accuracy", "last"):
        runs[keep] = weights(tmp_path / keep, keep=keep, epochs=4)
    records = {k: v.record for k, v in runs.items()}
    assert {k: r["best_epoch"] for k, r in records.items()} == {"best": 2, "accuracy": 3, "last": 4}
    assert [r["validation_loss"] for r in records.values()] == [1.0, 2.0, 1.5]
    assert differ(runs["best"], runs["last"]) > 0
    short = weights(tmp_path / "short", epochs=2, keep="last")
    assert differ(runs["best"], short) == 0


def test_a_last_epoch_that_diverged_is_not_kept(tmp_path, monkeypatch):
    def log_figures(self, batch, batch_idx):
        loss = math.nan if self.current_epoch else 1.0
        self.log("validation/loss", torch.tensor(loss), batch_size=len(batch[1]))
        self.log("validation/accuracy", 0.5, batch_size=len(batch[1]))

    monkeypatch.setattr(ClassifierModule, "validation_step", log_figures)
    with pytest.raises(InputError, match="not a finite number in the last epoch"):
        weights(tmp_path / "last", keep="last")
    assert weights(tmp_path / "best").record["best_epoch"] == 1


def test_mixed_precision_trains_near_the_full_one(tmp_path):
    full = weights(tmp_path / "full")
    half = weights(tmp_path / "half", TrainerSpec(precision="bf16-mixed"))
    assert 0 < differ(full, half) < 0.05
    assert all(p.dtype == torch.float32 for p in half.model.parameters())


def test_losses_of_mixed_precision_are_not_rounded(tmp_path, monkeypatch):
    kinds = set()
    real = F.cross_entropy

    def spy(logits, *args, **kwargs):
        answer = real(logits, *args, **kwargs)
        kinds.add((logits.dtype, answer.dtype))
        return answer

    monkeypatch.setattr(F, "cross_entropy", spy)
    for precision, kind in (("bf16-mixed", torch.float32), ("64-true", torch.float64)):
        kinds.clear()
        weights(tmp_path / precision, TrainerSpec(precision=precision))
        assert kinds == {(kind, kind)}


@pytest.mark.slow
def test_compiled_training_gives_the_same_weights_under_the_same_names(tmp_path):
    plain = weights(tmp_path / "plain")
    compiled = weights(tmp_path / "compiled", TrainerSpec(compile=True))
    assert plain.model.state_dict().keys() == compiled.model.state_dict().keys()
    assert differ(plain, compiled) < 1e-4


def test_what_cannot_be_compiled_is_said(tmp_path, monkeypatch):
    from torch._dynamo.exc import TorchDynamoException

    def fail(self, batch, batch_idx):
        raise TorchDynamoException("no compiler\nand more")

    monkeypatch.setattr(ClassifierModule, "training_step", fail)
    monkeypatch.setattr(nn.Module, "compile", lambda self: None)
    with pytest.raises(
        InputError, match="cnn_small cannot be compiled here: no compiler; leave out"
    ):
        weights(tmp_path, TrainerSpec(compile=True))


def test_tensorboard_gets_what_the_table_gets(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    weights(tmp_path, TrainerSpec(tensorboard=True))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("train/loss", "train/lr", "validation/loss", "validation/accuracy"):
        table = [(int(r["step"]), float(r[name])) for r in rows if r[name]]
        assert len(table) == 2
        logged = events.Scalars(name)
        assert [event.step for event in logged] == [step for step, _ in table]
        assert [event.value for event in logged] == pytest.approx([value for _, value in table])


def test_tensorboard_that_is_not_installed_is_said(tmp_path, monkeypatch):
    spec = TrainerSpec(tensorboard=True)
    trained = weights(tmp_path / "done", spec, epochs=1)
    monkeypatch.setattr(specs, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed: pip install 'nearfar\[logs\]'"):
        weights(tmp_path / "new", spec, epochs=1)
    assert not (tmp_path / "new").exists()
    # What was trained with it is a net like any other.
    assert differ(load_checkpoint(trained.path), weights(tmp_path / "done", spec, epochs=1)) == 0


def test_velocity_is_momentum_until_the_rate_changes(tmp_path):
    same = {"schedule": "constant", "epochs": 2}
    one = weights(tmp_path / "a", optimizer="velocity", weight_decay=0.01, **same)
    two = weights(tmp_path / "b", optimizer="momentum", weight_decay=0.01, **same)
    assert differ(one, two) < 1e-6
    steps = {"schedule": "steps", "milestones": (1,), "epochs": 2, "keep": "last"}
    one = weights(tmp_path / "c", optimizer="velocity", weight_decay=0.01, **steps)
    two = weights(tmp_path / "d", optimizer="momentum", weight_decay=0.01, **steps)
    assert differ(one, two) > 1e-4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FitSpec(accumulate=0), "accumulate must be at least 1 batch, got 0"),
        (lambda: FitSpec(ema=1.0), "ema is a decay between 0 and 1, .* got 1.0"),
        (lambda: FitSpec(clip=0.0), "clip is a norm above 0, got 0.0"),
        (lambda: FitSpec(mixup=-0.1), "mixup and cutmix are at least 0, got mixup=-0.1"),
        (lambda: FitSpec(cutmix=math.inf), "got mixup=0.0, cutmix=inf"),
        (lambda: FitSpec(label_smoothing=1.0), "from 0 to below 1, got 1.0"),
        (lambda: FitSpec(init="zeros"), "init must be one of 'default', 'he', 'normal', got 'zeros'"),
        (lambda: FitSpec(keep="first"), "keep must be one of 'best', 'accuracy', 'last', got 'first'"),
        (lambda: TrainerSpec(save_every=0), "save_every must be at least 1 update, got 0"),
    ],
)  # fmt: skip
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_precision_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match="trainer settings cannot be used: .*7-bit"):
        weights(tmp_path, TrainerSpec(precision="7-bit"))
    assert WEIGHTS not in {p.name for p in tmp_path.iterdir()}
