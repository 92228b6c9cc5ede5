from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from nearfar.auditing import AuditSpec, audit
from nearfar.data import DataSpec, ScaleDataModule
from nearfar.models import create_model
from nearfar.training import FitSpec, ModelSpec, load_checkpoint, train

DATA = DataSpec(train=128, validation=60, test=60, normalize="standard", augment="crop_flip", pad=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "normalised"
    return train(ModelSpec("cnn_small"), DATA, FitSpec(epochs=3), seed=1, out=out)


def by_hand(trained, images):
    """The bare network's answers to images that this test normalises itself."""
    network = create_model("cnn_small", num_classes=10, in_chans=1).eval()
    network.load_state_dict(load_file(trained.path))
    figures = trained.record["normalisation"]
    mean, std = (torch.tensor(figures[k]).view(1, -1, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        return network((images - mean) / std)


def test_the_record_holds_the_training_images_figures(trained):
    images = ScaleDataModule(DATA).images("train", 1.0).double()
    figures = trained.record["normalisation"]
    assert figures["mean"] == pytest.approx([float(images.mean())], rel=1e-6)
    assert figures["std"] == pytest.approx([float(images.std(correction=0))], rel=1e-6)


def test_an_audit_shows_the_net_what_training_did(trained, tmp_path):
    data = ScaleDataModule(trained.recipe.data)
    validation = by_hand(trained, data.images("validation", 1.0))
    loss = torch.nn.functional.cross_entropy(validation, data.labels("validation"))
    assert float(loss) == pytest.approx(trained.record["validation_loss"], rel=1e-4)
    result = audit(trained.path, spec=AuditSpec(scales=(0.5, 1.0)), out=tmp_path).only
    for k, scale in enumerate((0.5, 1.0)):
        logits = by_hand(trained, data.images("test", scale))
        assert torch.equal(result.curve.predictions[k], logits.argmax(1))
        with torch.inference_mode():
            raw = load_checkpoint(trained.path).model.network(data.images("test", scale))
        assert not torch.equal(raw.argmax(1), logits.argmax(1))  # so it matters here
    assert json.loads((tmp_path / "audit.json").read_text())["test_images"] == 60


def test_augmented_training_repeats_bit_for_bit(trained, tmp_path):
    again = train(ModelSpec("cnn_small"), DATA, FitSpec(epochs=3), seed=1, out=tmp_path / "a")
    assert again.path.read_bytes() == trained.path.read_bytes()
    plain = DataSpec(train=128, validation=60, test=60, normalize="standard")
    other = train(ModelSpec("cnn_small"), plain, FitSpec(epochs=3), seed=1, out=tmp_path / "b")
    one, two = (c.model.network.head.fc.weight for c in (trained, other))
    assert not torch.equal(one, two)


def test_lightning_tells_the_images_which_epoch_it_is(tmp_path, monkeypatch):
    epochs = []
    from nearfar.data.augmentation import plan

    def spy(count, pad, seed, epoch, places):
        epochs.append(epoch)
        return drawn(count, pad, seed, epoch, places)

    drawn = plan.draw_crop_flip
    monkeypatch.setattr(plan, "draw_crop_flip", spy)
    train(ModelSpec("cnn_small"), DATA, FitSpec(epochs=3), out=tmp_path)
    assert epochs == [0, 1, 2]


def test_a_finished_run_whose_record_leaves_out_defaults_is_returned(tmp_path):
    data = DataSpec(train=128, validation=60, test=60)
    first = train(ModelSpec("cnn_small"), data, FitSpec(epochs=1), out=tmp_path)
    record = dict(first.record)
    for part, names in (
        ("data", ("augment", "pad", "normalize")),
        ("fit", ("momentum", "decay_all", "milestones", "factor", "patience", "warmup_epochs", "warmup_lr")),
    ):  # fmt: skip
        for name in names:
            del record["recipe"][part][name]
    del record["normalisation"]
    from nearfar.training.checkpoint import save_checkpoint

    save_checkpoint(first.path, first.model, record)
    again = train(ModelSpec("cnn_small"), data, FitSpec(epochs=1), out=tmp_path)
    assert torch.equal(again.model.head.fc.weight, first.model.head.fc.weight)
