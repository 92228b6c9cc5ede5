"""Training a network that is there already, and from a teacher's answers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nearfar.data import DataSpec, ScaleDataModule, SoftLabels
from nearfar.errors import InputError
from nearfar.models import create_model
from nearfar.training import FitSpec, ModelSpec, Recipe, TrainerSpec, train, train_recipe

DATA = DataSpec(train=60, validation=30, test=30).explicit()


def recipe(**fit):
    spec = FitSpec(**{"epochs": 1, "batch_size": 60, "lr": 0.01, "keep": "last", **fit})
    return Recipe(ModelSpec("cnn_small"), DATA, spec, 0, TrainerSpec())


def shares(images, sharp):
    """Answers of a teacher that knows the labels and doubts them."""
    return {
        split: F.one_hot(images.labels(split), 10) * sharp + (1 - sharp) / 10
        for split in ("train", "validation")
    }


def test_a_network_given_is_trained_as_one_that_is_named(tmp_path):
    torch.manual_seed(0)
    net = create_model("cnn_small", num_classes=10, in_chans=1)
    first = {k: v.clone() for k, v in net.state_dict().items()}
    trained = train_recipe(recipe(), tmp_path / "given", network=net)
    # The run draws its first weights with the same seed, so it is the same run.
    named = train_recipe(recipe(), tmp_path / "named")
    for name, tensor in named.model.state_dict().items():
        torch.testing.assert_close(trained.model.state_dict()[name], tensor, rtol=0, atol=0)
        torch.testing.assert_close(net.state_dict()[name], first[name], rtol=0, atol=0)


def test_a_teacher_without_doubt_teaches_labels(tmp_path):
    images = ScaleDataModule(DATA)
    soft_labels = SoftLabels(shares(images, 1.0), images.class_names)
    taught = train_recipe(recipe(), tmp_path / "taught", soft_labels=soft_labels)
    plain = train_recipe(recipe(), tmp_path / "plain")
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(taught.model.state_dict()[name], tensor)


def test_what_is_learnt_is_the_cross_entropy_to_the_answers(tmp_path):
    images = ScaleDataModule(DATA)
    soft_labels = SoftLabels(shares(images, 0.6), images.class_names)
    torch.manual_seed(0)
    net = create_model("cnn_small", num_classes=10, in_chans=1)
    train_recipe(recipe(lr=1e-9), tmp_path / "run", network=net, soft_labels=soft_labels)
    row = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    columns = row[0].split(",")
    values = [dict(zip(columns, line.split(","), strict=True)) for line in row[1:]]
    loss = next(float(v["train/loss"]) for v in values if v["train/loss"])
    with torch.no_grad():
        logits = net.train()(images.images("train", 1.0))
    expected = -(soft_labels.probabilities["train"] * logits.log_softmax(1)).sum(1).mean()
    assert loss == pytest.approx(float(expected), rel=1e-4)
    assert any(v["train/accuracy"] for v in values)


def test_other_soft_labels_are_another_run(tmp_path):
    images = ScaleDataModule(DATA)
    first = SoftLabels(shares(images, 0.6), images.class_names)
    other = SoftLabels(shares(images, 0.9), images.class_names)
    one, two = ScaleDataModule(DATA), ScaleDataModule(DATA)
    one.learn_from(first)
    two.learn_from(other)
    assert one.fingerprint() != two.fingerprint()
    assert one.fingerprint()["images"] == images.fingerprint()["images"]


def test_soft_labels_that_do_not_fit_are_refused():
    images = ScaleDataModule(DATA)
    good = shares(images, 0.5)
    with pytest.raises(
        InputError, match=r"\[N, 10\] probabilities for train and validation, got train"
    ):
        SoftLabels({"train": good["train"]}, images.class_names)
    with pytest.raises(InputError, match="probabilities for train and validation"):
        SoftLabels({**good, "train": good["train"][:, :3]}, images.class_names)
    with pytest.raises(InputError, match="probabilities of 5 images for train, and there are 60"):
        images.learn_from(SoftLabels({**good, "train": good["train"][:5]}, images.class_names))


def test_settings_that_do_not_go_with_it_are_refused(tmp_path):
    images = ScaleDataModule(DATA)
    soft_labels = SoftLabels(shares(images, 0.5), images.class_names)
    with pytest.raises(InputError, match="mixup and cutmix need labels"):
        train_recipe(recipe(mixup=0.2), tmp_path / "run", soft_labels=soft_labels)
    several = Recipe(ModelSpec("cnn_small"), DATA, FitSpec(), 0, TrainerSpec(devices=2))
    with pytest.raises(InputError, match="trains in one process, got devices=2"):
        train_recipe(several, tmp_path / "run", soft_labels=soft_labels)


def test_a_recipe_may_begin_with_somebodys_weights_and_convert(tmp_path):
    torch.manual_seed(3)
    net = create_model("cnn_small", num_classes=10, in_chans=1)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "theirs.pth")
    from nearfar.conversion import SILayers
    from nearfar.training import load_checkpoint

    spec = ModelSpec(
        "cnn_small",
        weights=str(tmp_path / "theirs.pth"),
        mean=(0.5,),
        std=(0.25,),
        convert=SILayers(scales=(1.0,)),
    )
    trained = train(spec, DATA, FitSpec(epochs=1, lr=1e-9, keep="last"), out=tmp_path / "run")
    images = ScaleDataModule(DATA).images("test", 1.0)
    expected = net.eval()((images - 0.5) / 0.25)
    torch.testing.assert_close(trained.model(images), expected, rtol=1e-3, atol=1e-3)
    (tmp_path / "theirs.pth").unlink()  # a checkpoint stands on its own
    again = load_checkpoint(trained.path)
    torch.testing.assert_close(again.model(images), trained.model(images))
    assert again.recipe == trained.recipe


def test_images_are_not_normalised_twice():
    with pytest.raises(
        InputError, match="by model.mean and model.std or by data.normalize, not by both"
    ):
        Recipe(
            ModelSpec(mean=(0.5,), std=(0.5,)),
            DataSpec(normalize="standard"),
            FitSpec(),
            0,
            TrainerSpec(),
        )
