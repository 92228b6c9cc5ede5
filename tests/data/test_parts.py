from __future__ import annotations

import sys
import tarfile
from types import ModuleType

import pytest
import torch
from pictures import folder, noise

from nearfar.data import DataSpec, load_source
from nearfar.data.sources import has_test_part
from nearfar.data.sources.hugging_face import hub_parts
from nearfar.data.sources.parts import Parts, named_parts, part_named, shard_part
from nearfar.errors import InputError


def pack(tar, root):
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar, "w") as archive:
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            archive.add(path, str(path.relative_to(root)))
    return tar


@pytest.fixture(params=["folder", "stream_folder", "stream_tar"])
def load(request, tmp_path):
    """Loads a folder, or the same as a tar file."""

    def load(root):
        if request.param == "stream_tar":
            root = pack(tmp_path / "packed" / f"{root.name}.tar", root)
        data = load_source(request.param, root)
        spec = DataSpec(request.param, root).explicit()
        assert spec.split == ("seed" if data.test_from is None else "official")
        assert has_test_part(request.param, root) == (data.test_from is not None)
        return data

    return load


@pytest.mark.parametrize(
    ("parts", "test_from"),
    [
        (("Training", "Testing"), 4),
        (("train", "Val"), 4),
        (("TRAIN", "eval", "test"), 8),
        (("train", "valid"), 4),
        (("train",), None),
    ],
)
def test_parts_of_many_names(load, tmp_path, parts, test_from):
    data = load(folder(tmp_path / "images", 4, parts))
    assert (data.class_names, data.test_from) == (("cat", "dog"), test_from)
    assert len(data.labels) == 4 * len(parts)


def test_images_come_in_the_order_of_their_parts(load, tmp_path):
    root = folder(tmp_path / "images", 4, ("eval", "train", "test"))
    data, plain = load(root), load_source("folder", root / "train")
    first = data.images[torch.arange(4)]
    assert all(torch.equal(a, b) for a, b in zip(first, plain.images, strict=True))


@pytest.mark.parametrize(
    ("others", "match"),
    [
        (
            ("holdout",),
            r"training part \(train\), .* got holdout: rename them, .* if train is a class",
        ),
        (("test", "extra"), r"named train \(or training\), val .* got extra"),
        (("test", "testing"), "one test part at most, got test and testing, which both mean it"),
        (("val", "eval"), "one validation part at most, got eval and val"),
    ],
)
def test_what_lies_beside_the_training_part(load, tmp_path, others, match):
    root = folder(tmp_path / "images", 4, ("train", *others))
    with pytest.raises(InputError, match=match):
        load(root)


def test_a_part_without_classes_is_none(load, tmp_path):
    root = folder(tmp_path / "images", 4, ("train", "val"))
    noise(root / "test" / "0.png", 0)
    with pytest.raises(
        InputError, match=r"with a sub-folder a class may hold images, .* got test:"
    ):
        load(root)


def test_what_holds_no_images_is_passed_over(tmp_path):
    root = folder(tmp_path, 4, ("train", "val"))
    (root / "annotations" / "xml").mkdir(parents=True)
    (root / "test").mkdir()
    assert load_source("folder", root).test_from == 4


@pytest.mark.parametrize("names", [("Lernen", "Pruefen"), ("val", "test"), ("fold1", "fold2")])
def test_classes_that_look_like_parts_are_refused(load, tmp_path, names):
    one, other = sorted(names)
    match = (
        f"got {one} and {other}, which hold no images but the same folders .cat, dog.; if they are "
        r"parts, name them train \(or training\)"
    )
    root = folder(tmp_path / "images", 4, names)
    with pytest.raises(InputError, match=match):
        load(root)
    # What is refused has no default of its split.
    assert DataSpec("folder", root).explicit().split is None


def test_classes_may_hold_folders(load, tmp_path):
    for kind in ("n01", "n02"):  # one and the same, as in Tiny ImageNet
        noise(tmp_path / "images" / kind / "images" / "0.png", 0)
    assert load(tmp_path / "images").class_names == ("n01", "n02")
    for kind in ("n01", "n02"):
        noise(tmp_path / "images" / kind / "0.png", 0)
        noise(tmp_path / "images" / kind / "left" / "0.png", 0)
    assert len(load(tmp_path / "images").labels) == 6


def test_classes_may_be_named_like_parts(load, tmp_path):
    for kind in ("plane", "train", "test"):
        noise(tmp_path / "images" / kind / "0.png", 0)
    assert load(tmp_path / "images").class_names == ("plane", "test", "train")


def test_hidden_folders_in_tars(tmp_path):
    root = folder(tmp_path / "images", 4)
    noise(root / "cat" / ".ipynb_checkpoints" / "0.png", 0)
    noise(root / "__MACOSX" / "cat" / "0.png", 0)
    assert len(load_source("stream_tar", pack(tmp_path / "all.tar", root)).labels) == 4
    pack(tmp_path / "some" / ".trash" / "emu.tar", root / "cat")
    for kind in ("cat", "dog"):
        pack(tmp_path / "some" / f"{kind}.tar", root / kind)
    assert load_source("stream_tar", tmp_path / "some").class_names == ("cat", "dog")


def test_names():
    assert [part_named(n) for n in ("Training", "VALID", "eval", "testing", "tests", "")] == [
        *("train", "validation", "validation", "test"),
        *(None, None),
    ]
    stems = ("train-0", "Val_00", "imagenet1k-validation-63", "traindata0", "evaluation", "shard-1")
    assert [shard_part(stem) for stem in stems] == [
        *("train", "validation", "validation", "train", "validation"),
        None,
    ]
    assert named_parts(["test", "val", "train"], "x") == Parts(("train", "val"), "test")
    assert named_parts(["Eval", "train"], "x") == Parts(("train",), "Eval")


def shards(root, *names):
    root.mkdir()
    for name in names:
        with tarfile.open(root / f"{name}.tar", "w"):
            pass
    return root


def test_shards_name_their_part_all_or_none(tmp_path):
    root = shards(tmp_path / "a", "imagenet-train-0", "imagenet-val-0", "imagenet-test-0")
    assert has_test_part("stream_wds", root)
    assert not has_test_part("stream_wds", shards(tmp_path / "b", "shard-0", "shard-1"))
    assert not has_test_part("stream_wds", shards(tmp_path / "c", "val-0"))
    for i, names in enumerate((("train-0", "more-0"), ("val-0", "test-0"), ("test-0", "more-0"))):
        with pytest.raises(InputError, match="shards that all name their part, one of them train"):
            has_test_part("stream_wds", shards(tmp_path / str(i), *names))


def test_the_hub_s_splits(monkeypatch):
    package = ModuleType("datasets")
    monkeypatch.setitem(sys.modules, "datasets", package)
    for splits, expected in (
        (["train", "test", "extra"], Parts(("train",), "test")),
        (["train", "validation", "test"], Parts(("train", "validation"), "test")),
        (["Train", "valid"], Parts(("Train",), "valid")),
    ):
        package.get_dataset_split_names = lambda _, splits=splits: splits
        assert hub_parts("x") == expected
    package.get_dataset_split_names = lambda _: ["test"]
    with pytest.raises(InputError, match=r"hfds/x cannot be used: it has the splits test; .*train"):
        hub_parts("x")
