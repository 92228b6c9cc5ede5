from __future__ import annotations

import dataclasses

import pytest
import torch
from pictures import folder

from nearfar.data import DataSpec, LabelledImages, ScaleDataModule, ScaleProtocol, module
from nearfar.data.splits import split_indices
from nearfar.errors import InputError

# 60 training images and 40 test images of four classes.
LABELS = torch.arange(100) % 4


def sizes(indices):
    return {name: len(found) for name, found in indices.items()}


def test_the_official_split_tests_on_the_test_part_alone():
    spec = DataSpec("cifar10", split="official", train=40, validation=12, split_seed=1)
    found = split_indices(spec, LABELS, 60)
    assert sizes(found) == {"train": 40, "validation": 12, "test": 40}
    assert found["test"].tolist() == list(range(60, 100))
    both = torch.cat([found["train"], found["validation"]])
    assert len(both.unique()) == 52
    assert both.max() < 60
    assert LABELS[found["train"]].bincount().tolist() == [10] * 4
    assert LABELS[found["validation"]].bincount().tolist() == [3] * 4
    other = split_indices(
        DataSpec("cifar10", split="official", train=40, validation=12), LABELS, 60
    )
    assert not torch.equal(other["validation"], found["validation"])
    fewer = split_indices(DataSpec("cifar10", split="official", test=8), LABELS, 60)
    assert LABELS[fewer["test"]].bincount().tolist() == [2] * 4
    assert fewer["test"].min() >= 60


def test_all_images_are_used_where_no_number_is_given():
    official = split_indices(DataSpec("cifar10", split="official"), LABELS, 60)
    assert sizes(official) == {"train": 54, "validation": 6, "test": 40}
    drawn = split_indices(DataSpec("cifar10"), LABELS, 60)
    assert sizes(drawn) == {"train": 70, "validation": 10, "test": 20}
    assert len(torch.cat(list(drawn.values())).unique()) == 100


def test_digits_keep_the_numbers_they_had():
    spec = DataSpec().explicit()
    assert (spec.train, spec.validation, spec.pad, spec.size) == (900, 300, None, None)
    assert DataSpec("folder").explicit().size == 24  # 12 pixels, shown at up to twice that
    assert DataSpec("folder", size=9, augment="crop_flip").explicit().size == 9
    assert DataSpec(augment="crop_flip").explicit().pad == 4


@pytest.mark.parametrize("split", ["seed", "official"])
def test_asking_for_fewer_test_images_never_moves_training_images(split):
    every = split_indices(DataSpec("cifar10", split=split), LABELS, 60)
    fewer = split_indices(DataSpec("cifar10", split=split, test=8), LABELS, 60)
    for name in ("train", "validation"):
        assert torch.equal(every[name], fewer[name])
    assert set(fewer["test"].tolist()) < set(every["test"].tolist())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            DataSpec("cifar10", split="official", train=50, validation=11),
            "cifar10 has 60 images and 40 official test images, too few for train=50, validation=11",
        ),
        (DataSpec("cifar10", split="official", test=41), "too few .* test=41; ask for fewer"),
        (DataSpec("cifar10", validation=3), "cannot split 3 images for validation so that every"),
    ],
)
def test_refusals(spec, message):
    with pytest.raises(InputError, match=message):
        split_indices(spec, LABELS, 60)


def test_a_folder_without_test_images_says_how_to_add_some():
    with pytest.raises(InputError, match="or put test images into a sub-folder test"):
        split_indices(DataSpec("folder", split="official"), LABELS, None)


def test_images_stay_bytes_and_are_not_copied(monkeypatch):
    stored = torch.randint(256, (100, 3, 6, 6), dtype=torch.uint8)
    names = ("a", "b", "c", "d")
    monkeypatch.setattr(
        module, "load_source", lambda *_, **__: LabelledImages(stored, LABELS, names, 60)
    )
    monkeypatch.setattr("nearfar.data.dataset.HOLD", 0)
    data = ScaleDataModule(DataSpec("cifar10", split="official"))
    shown = data.train_dataloader().dataset
    assert shown._held is None
    assert shown._images.data_ptr() == stored.data_ptr()
    monkeypatch.undo()
    monkeypatch.setattr(
        module, "load_source", lambda *_, **__: LabelledImages(stored, LABELS, names, 60)
    )
    held = ScaleDataModule(DataSpec("cifar10", split="official"))
    for one, two in zip(data.train_dataloader(), held.train_dataloader(), strict=True):
        torch.testing.assert_close(one, two)


def test_one_s_own_test_part_is_not_trained_on_unasked(tmp_path):
    parted = folder(tmp_path / "parted", 20, ("Training", "Testing"))
    plain = folder(tmp_path / "plain", 20)
    spec = DataSpec("folder", parted, ScaleProtocol(canvas=4, content=4))
    assert spec.split is None
    assert spec.explicit().split == "official"
    assert dataclasses.replace(spec, root=plain).explicit().split == "seed"
    data = ScaleDataModule(spec)
    assert (data.spec.split, data.indices["test"].tolist()) == ("official", list(range(20, 40)))
    drawn = dataclasses.replace(spec, split="seed")  # as records of older runs say
    assert drawn.explicit().split == "seed"
    assert ScaleDataModule(drawn).indices["train"].max() >= 20


def test_published_sources_keep_seed_as_their_default():
    for source in ("digits", "cifar10", "mnist_scale", "tiny_imagenet"):
        assert DataSpec(source).explicit().split == "seed"


def test_a_split_that_files_decide_waits_for_them(tmp_path):
    spec = DataSpec("folder", tmp_path / "nowhere")
    assert spec.explicit().split is None
    with pytest.raises(InputError, match="an existing folder with a sub-folder a class"):
        ScaleDataModule(spec)
    assert split_indices(spec, LABELS, 60)["test"].tolist() == list(range(60, 100))
    assert sizes(split_indices(spec, LABELS, None))["test"] == 20
