from __future__ import annotations

import csv
import json
import socket
import struct
from functools import partial

import pytest
import torch
import yaml
from torch import nn

from nearfar.data import DataSpec, ScaleDataModule, ScaleProtocol
from nearfar.errors import InputError
from nearfar.models import create_model
from nearfar.models.initialisation import draw_weights
from nearfar.progress import Step
from nearfar.training import (
    FitSpec,
    ModelSpec,
    Recipe,
    TrainerSpec,
    load_checkpoint,
    prepare_network,
    train,
)
from nearfar.training.checkpoint import read_record, save_checkpoint
from nearfar.training.run_folder import WEIGHTS

DATA = DataSpec(train=128, validation=60, test=60)
FIT = FitSpec(epochs=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "plain"
    steps: list[Step] = []
    return train(ModelSpec("cnn_small"), DATA, FIT, seed=1, out=out, progress=steps.append), steps


def test_it_learns_and_reports(run, tmp_path):
    trained, steps = run
    assert [(s.task, s.done, s.total) for s in steps] == [
        ("training cnn_small", 1, 2),
        ("training cnn_small", 2, 2),
    ]
    untrained = nn.functional.cross_entropy
    data = ScaleDataModule(DATA)
    torch.manual_seed(1)
    fresh = create_model("cnn_small", in_chans=1)
    with torch.no_grad():
        images, labels = data.images("validation", 1.0), data.labels("validation")
        before, after = untrained(fresh(images), labels), untrained(trained.model(images), labels)
        right = (trained.model(images).argmax(1) == labels).float().mean()
    assert after < before
    assert float(after) == pytest.approx(trained.record["validation_loss"], rel=1e-4)
    assert float(right) == pytest.approx(trained.record["validation_accuracy"])


def test_the_folder_holds_what_reproduces_it(run):
    trained, _ = run
    folder = trained.path.parent
    assert {p.name for p in folder.iterdir()} == {
        WEIGHTS,
        "config.yaml",
        "metrics.csv",
        "checkpoints",
    }
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert Recipe.from_dict(config) == trained.recipe == Recipe.from_dict(trained.recipe.as_dict())
    header, *rows = (folder / "metrics.csv").read_text().splitlines()
    assert "validation/loss" in header
    assert len(rows) >= 2


def test_the_same_seed_gives_the_same_bits_and_leaves_the_caller_s_generator_alone(run, tmp_path):
    trained, _ = run
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = train(ModelSpec("cnn_small"), DATA, FIT, seed=1, out=tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()
    for key, tensor in trained.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[key])
    other = train(ModelSpec("cnn_small"), DATA, FIT, seed=2, out=tmp_path / "other")
    assert not torch.equal(other.model.head.fc.weight, again.model.head.fc.weight)


def test_a_finished_run_is_returned_and_never_written_over(run):
    trained, _ = run
    written = trained.path.stat().st_mtime_ns
    steps: list[Step] = []
    again = train(
        ModelSpec("cnn_small"), DATA, FIT, seed=1, out=trained.path.parent, progress=steps.append
    )
    assert steps == []
    assert torch.equal(again.model.head.fc.weight, trained.model.head.fc.weight)
    with pytest.raises(
        InputError, match="is not empty and holds no unfinished run of these settings"
    ):
        train(ModelSpec("cnn_small"), DATA, FIT, seed=2, out=trained.path.parent)
    assert trained.path.stat().st_mtime_ns == written


def test_what_an_interrupted_run_left_does_not_stop_the_next(tmp_path):
    recipe = Recipe(ModelSpec("cnn_small"), DATA.explicit(), FitSpec(epochs=1), 0, TrainerSpec())
    (tmp_path / "config.yaml").write_text(
        f"# nearfar train --config config.yaml\n{recipe.as_yaml()}"
    )
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"half")
    (tmp_path / "metrics.csv").write_text("epoch,step\n0,1\n")
    trained = train(ModelSpec("cnn_small"), DATA, FitSpec(epochs=1), out=tmp_path)
    assert trained.record["best_epoch"] == 1


def test_training_accuracy_is_what_was_met_in_training(tmp_path):
    """At a rate that changes nothing it is that of the first weights, on batches of two sizes."""
    fit = FitSpec(epochs=1, batch_size=50, lr=1e-30, optimizer="sgd", schedule="constant")
    train(ModelSpec("cnn_small"), DATA, fit, seed=3, out=tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        (logged,) = [row["train/accuracy"] for row in csv.DictReader(file) if row["train/accuracy"]]
    torch.manual_seed(3)
    fresh = create_model("cnn_small", in_chans=1)
    data = ScaleDataModule(DATA)
    with torch.no_grad():
        right = fresh(data.images("train", 1.0)).argmax(1) == data.labels("train")
    assert 0 < float(right.float().mean()) < 1
    assert float(logged) == pytest.approx(float(right.float().mean()), abs=1e-6)


@pytest.mark.parametrize(("count", "size"), [(65, 64), (12, 1)])
def test_a_last_batch_of_one_image_is_refused_where_a_batch_norm_cannot_take_it(
    tmp_path, count, size
):
    data = DataSpec(train=count, validation=60, test=60)
    spec = FitSpec(epochs=1, batch_size=size)
    with pytest.raises(
        InputError,
        match=rf"'cnn_digit' cannot be trained on a batch of 1 image, which the last of {count} training "
        rf"images in batches of {size} is: .*; choose another fit.batch_size or data.train",
    ):
        train(ModelSpec("cnn_digit"), data, spec, out=tmp_path)


def test_a_last_batch_of_one_image_is_fine_for_other_nets(tmp_path, monkeypatch):
    """And looking at it changes no bit."""
    data = DataSpec(train=65, validation=60, test=60)
    go = partial(train, ModelSpec("cnn_small", {"norm": True}), data, FitSpec(epochs=1))
    looked = go(out=tmp_path / "looked")
    monkeypatch.setattr(prepare_network, "_check_training_mode", lambda *args: None)
    assert looked.path.read_bytes() == go(out=tmp_path / "not").path.read_bytes()


def test_divergence_is_said(tmp_path):
    fit = FitSpec(epochs=1, lr=1e30, optimizer="sgd", schedule="constant")
    with pytest.raises(InputError, match=r"training diverged .*lower fit.lr \(now 1e\+30\)"):
        train(ModelSpec("cnn_small"), DATA, fit, out=tmp_path)
    assert not (tmp_path / WEIGHTS).exists()


def test_filters_that_extend_over_scale_train(tmp_path):
    """Their five dimensions have no channels-last layout."""
    data = DataSpec(train=32, validation=20, test=20, protocol=ScaleProtocol(16, 12))
    model = ModelSpec("scale_tiny", {"levels": 2})
    trained = train(model, data, FitSpec(epochs=1), out=tmp_path)
    weight = trained.model.stages[0][0].weight
    assert weight.dim() == 5
    torch.manual_seed(0)
    fresh = create_model("scale_tiny", num_classes=10, in_chans=1, levels=2)
    assert not torch.equal(weight, fresh.stages[0][0].weight)


@pytest.mark.parametrize("name", ["wsms_cnn_small", "si_cnn_small"])
def test_checkpoints_keep_options_weights_and_sharing(name, tmp_path):
    options = {"scales": [0.5, 1.0]} if name.startswith("si") else {"integration": "conv1x1"}
    model = create_model(name, num_classes=3, in_chans=1, **options).eval()
    recipe = Recipe(ModelSpec(name, options), DATA, FIT, 0, TrainerSpec())
    record = {"recipe": recipe.as_dict(), "in_chans": 1, "class_names": ["a", "b", "c"]}
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, model, record)
    loaded = load_checkpoint(path)
    assert loaded.class_names == ("a", "b", "c")
    assert not loaded.model.training
    x = torch.randn(2, 1, 28, 28)
    assert torch.equal(loaded.model(x), model(x))
    if name.startswith("wsms"):
        one, two = (tower[1][0].weight for tower in loaded.model.towers)
        assert one is two
        stored = sum(p.numel() for p in model.parameters()) * 4
        assert path.stat().st_size < stored + 6000  # shared weights are stored once


def tampered(path, change):
    blob = path.read_bytes()
    (size,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8 : 8 + size])
    change(header)
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + blob[8 + size :])


def test_refusals_of_checkpoints(run, tmp_path):
    trained, _ = run
    with pytest.raises(InputError, match="no checkpoint at .*nothing"):
        load_checkpoint(tmp_path / "nothing")
    path = tmp_path / "w.safetensors"
    path.write_bytes(trained.path.read_bytes()[:500])
    with pytest.raises(InputError, match="not a safetensors file, or is cut off"):
        load_checkpoint(path)

    def fresh():
        path.write_bytes(trained.path.read_bytes())

    fresh()
    tampered(path, lambda h: h.pop("__metadata__"))
    with pytest.raises(InputError, match="without nearfar's record"):
        load_checkpoint(path)
    fresh()
    tampered(path, lambda h: h["__metadata__"].update(nearfar='{"format": 9, "nearfar": "7.0"}'))
    with pytest.raises(InputError, match=r"format 9, this nearfar reads 1; .* \(7.0\)"):
        read_record(path)
    fresh()
    tampered(path, lambda h: h.update(extra=h.pop("head.fc.bias")))
    with pytest.raises(
        InputError, match=r"does not fit the model 'cnn_small': extra, head.fc.bias"
    ):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FitSpec(epochs=0), "fit needs epochs >= 1"),
        (lambda: FitSpec(lr=float("nan")), "lr > 0"),
        (lambda: train(seed=-1), "seed must be from 0 to 4294967295, got -1"),
        (
            lambda: Recipe.from_dict({"model": {}}),
            "not a record of a .* run: data must be a mapping",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_an_unknown_optimizer_is_refused(tmp_path):
    with pytest.raises(InputError, match="no optimizer is named 'adan2'"):
        train(ModelSpec("cnn_small"), DATA, FitSpec(optimizer="adan2"), out=tmp_path)


def test_training_at_several_scales(tmp_path):
    data = DataSpec(
        protocol=ScaleProtocol(train_scales=(0.5, 1, 2)), train=64, validation=60, test=60
    )
    trained = train(ModelSpec("pyramid_cnn_small"), data, FitSpec(epochs=1), out=tmp_path)
    assert trained.recipe.data.protocol.train_scales == (0.5, 1.0, 2.0)


def test_a_specialist_of_one_size_keeps_the_epoch_that_is_best_at_that_size(tmp_path):
    """Not the one that is best at scale 1, which it never learns."""
    protocol = ScaleProtocol(28, 24)
    data = DataSpec(protocol=protocol, train=300, validation=100, random_scale=(0.38, 0.4))
    fit = FitSpec(epochs=6, lr=0.01, schedule="constant", keep="accuracy")
    trained = train(ModelSpec("cnn_small"), data, fit, seed=1, out=tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["validation/accuracy"]]
    accuracies = [float(row["validation/accuracy"]) for row in rows]
    assert trained.record["best_epoch"] == 1 + accuracies.index(max(accuracies)) > 3
    images = ScaleDataModule(data, seed=1)
    labels = images.labels("validation")
    with torch.no_grad():
        small, large = (
            float(
                (trained.model(images.images("validation", scale)).argmax(1) == labels)
                .float()
                .mean()
            )
            for scale in (0.39, 1.0)
        )
    assert trained.record["validation_accuracy"] == pytest.approx(small, abs=0.03)
    assert small > large + 0.3


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_outputs_are_trained_by_their_main_one(tmp_path, name):
    options = {"init_weights": False, "dropout": 0.0}
    model = ModelSpec(f"torchvision/{name}", options)
    data = DataSpec(protocol=ScaleProtocol(75, 60), train=10, validation=10, test=10, channels=3)
    fit = FitSpec(
        epochs=1, batch_size=10, optimizer="momentum", momentum=0.0, schedule="constant", lr=0.1,
        weight_decay=0.0, keep="last", init="he",
    )  # fmt: skip
    trained = train(model, data, fit, seed=4, out=tmp_path).model
    torch.manual_seed(4)
    network = create_model(model.name, num_classes=10, in_chans=3, **options).train()
    draw_weights(network, "he")
    auxiliary = {k: v for k, v in network.state_dict().items() if k.lower().startswith("aux")}
    for child in [name for name, _ in network.named_children() if name.lower().startswith("aux")]:
        setattr(network, child, None)
    images = ScaleDataModule(data, seed=4)
    output = network(images.images("train", 1.0))
    nn.functional.cross_entropy(output.logits, images.labels("train")).backward()
    step = (trained.fc.weight - network.fc.weight).detach()
    expected = -0.1 * network.fc.weight.grad
    # These networks magnify rounding: in float64, channels-first and channels-last agree; in float32 to 1 %.
    assert (step - expected).norm() < 0.02 * expected.norm()
    # The auxiliary classifiers stay as they were, in the network and in its checkpoint.
    assert trained.aux_logits
    assert auxiliary
    for key, tensor in auxiliary.items():
        assert torch.equal(trained.state_dict()[key], tensor)
    with torch.no_grad():
        assert trained(images.images("validation", 1.0)).shape == (10, 10)


@pytest.mark.parametrize(
    "options",
    [
        {"pretrained": True, "pretrained_cfg_overlay": {"url": "http://127.0.0.1:9/weights.pth"}},
        {"checkpoint_path": "elsewhere.pth"},
        {"pretrained_cfg": {"file": "elsewhere.pth"}},
    ],
)
def test_opening_a_checkpoint_touches_that_file_alone(options, run, tmp_path, monkeypatch):
    trained, _ = run
    record = read_record(trained.path)
    record["recipe"]["model"]["options"] = options
    save_checkpoint(tmp_path / "weights.safetensors", trained.model, record)
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a connection was opened"))
    with pytest.raises(InputError, match="with which opening it would fetch or read other files"):
        load_checkpoint(tmp_path / "weights.safetensors")


def test_a_network_that_was_fine_tuned_opens_without_its_first_weights(tmp_path, monkeypatch):
    model = create_model("test_resnet", num_classes=3)
    spec = ModelSpec("test_resnet", {"pretrained": True})
    record = {
        "recipe": Recipe(spec, DATA, FIT, 0, TrainerSpec()).as_dict(),
        "in_chans": 3,
        "class_names": list("abc"),
    }
    save_checkpoint(tmp_path / "weights.safetensors", model, record)
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a connection was opened"))
    opened = load_checkpoint(tmp_path / "weights.safetensors")
    assert all(t.equal(opened.model.state_dict()[n]) for n, t in model.state_dict().items())
