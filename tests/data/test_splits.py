from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import folder, noise

from nearfar.data import DataSpec, LabelledImages, ScaleDataModule, ScaleProtocol, datamodule
from nearfar.data.splits import missing_classes, split_indices, stratified_order
from nearfar.errors import InputError

# 60 training images and 40 test images of four classes.
LABELS = torch.arange(100) % 4


def sizes(indices):
    return {name: len(which) for name, which in indices.items()}


def test_the_official_split_tests_on_the_test_part_alone():
    spec = DataSpec("cifar10", split="official", train=40, validation=12, split_seed=1)
    indices = split_indices(spec, LABELS, 60)
    assert sizes(indices) == {"train": 40, "validation": 12, "test": 40}
    assert indices["test"].tolist() == list(range(60, 100))
    both = torch.cat([indices["train"], indices["validation"]])
    assert len(both.unique()) == 52
    assert both.max() < 60
    assert LABELS[indices["train"]].bincount().tolist() == [10] * 4
    assert LABELS[indices["validation"]].bincount().tolist() == [3] * 4
    other = split_indices(
        DataSpec("cifar10", split="official", train=40, validation=12), LABELS, 60
    )
    assert not torch.equal(other["validation"], indices["validation"])
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
    assert (spec.train, spec.validation, spec.pad) == (900, 300, None)
    other = DataSpec("folder").explicit()
    assert (other.train, other.validation, other.max_skipped) == (0, 0, 0.01)
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
    source = LabelledImages(stored, LABELS, ("a", "b", "c", "d"), 60)
    monkeypatch.setattr(datamodule, "load_source", lambda *_: source)
    spec = DataSpec("cifar10", split="official")
    rendered = ScaleDataModule(spec).train_dataloader()
    # As many bytes as the canvases of 54 images have pixels: they fit as bytes alone.
    canvases = 54 * 3 * 28 * 28
    for limit, dtype in ((canvases, torch.uint8), (canvases - 1, None)):
        monkeypatch.setattr("nearfar.data.dataset.FLOATING_LIMIT", limit)
        monkeypatch.setattr("nearfar.data.dataset.RENDERED_LIMIT", limit)
        data = ScaleDataModule(spec)
        loader = data.train_dataloader()
        assert getattr(loader.dataset._rendered, "dtype", None) == dtype
        assert loader.dataset._images.data_ptr() == stored.data_ptr()
        for (images, labels), (expected, there) in zip(loader, rendered, strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, there)


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


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 9))
def test_every_beginning_is_stratified(labels, seed):
    labels = torch.tensor(labels)
    order = stratified_order(labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    assert torch.equal(order, stratified_order(labels, seed))
    for count in range(len(labels) + 1):
        counts = labels[order[:count]].bincount(minlength=5)
        due = labels.bincount(minlength=5) * count / len(labels)
        assert float((counts - due).abs().max()) < 2.5


def test_the_seed_chooses():
    labels = torch.arange(100) % 3
    first, other = stratified_order(labels, 0), stratified_order(labels, 1)
    assert not torch.equal(first, other)
    assert labels[first[:30]].bincount().tolist() == [10, 10, 10]


def test_a_rare_class_is_there_in_proportion():
    labels = (torch.arange(100) >= 90).long()
    order = stratified_order(labels)
    for count in (10, 20, 50):
        assert labels[order[:count]].bincount(minlength=2).tolist() == [
            count * 9 // 10,
            count // 10,
        ]


def long_tailed(*counts):
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


@pytest.mark.parametrize(
    "counts", [(5, 200, 20), (2, 30, 30), (1, 60, 60), (3, 3, 300), (40, 2, 1)]
)
def test_rare_classes_are_in_the_splits_as_far_as_they_have_images(counts):
    labels = long_tailed(*counts)
    indices = split_indices(DataSpec("folder"), labels, None)
    assert sorted(torch.cat(list(indices.values())).tolist()) == list(range(len(labels)))
    usual = split_indices(DataSpec("folder"), torch.arange(len(labels)) % 2, None)
    assert sizes(indices)["test"] in (sizes(usual)["test"], max(3, len(labels) // 5))
    for number, count in enumerate(counts):
        here = {name: int((labels[which] == number).sum()) for name, which in indices.items()}
        assert here["train"] >= 1
        assert (here["test"] >= 1) == (count >= 2)
        assert (here["validation"] >= 1) == (count >= 3)
        for (
            name,
            which,
        ) in indices.items():  # in proportion, but for the images that each has at least
            assert abs(here[name] - count * len(which) / len(labels)) < 4
    again = split_indices(DataSpec("folder"), labels, None)
    assert all(torch.equal(again[name], which) for name, which in indices.items())
    fewer = (
        split_indices(DataSpec("folder", test=len(counts)), labels, None)
        if min(counts) > 1
        else again
    )
    assert torch.equal(fewer["train"], indices["train"])


def test_missing_classes_are_named(tmp_path, caplog):
    labels = long_tailed(1, 40, 2)
    indices = split_indices(DataSpec("folder"), labels, None)
    assert missing_classes(indices, labels, ("lynx", "cat", "dog")) == {
        "validation": ("lynx", "dog"), "test": ("lynx",),
    }  # fmt: skip
    balanced = split_indices(DataSpec("folder"), LABELS, None)
    assert missing_classes(balanced, LABELS, "abcd") == {}
    folder(tmp_path, 40)
    noise(tmp_path / "lynx" / "only.png", 7)
    with caplog.at_level(logging.WARNING):
        ScaleDataModule(DataSpec("folder", tmp_path, ScaleProtocol(canvas=4, content=4)))
    assert [record.getMessage() for record in caplog.records] == [
        f"folder: 1 of 3 classes have no image for {split}: lynx; add images of them, or leave them out"
        for split in ("validation", "test")
    ]
