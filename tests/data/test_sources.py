from __future__ import annotations

import os
import pickle
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from nearfar.data import load_source
from nearfar.data.image_dataset import image_sizes
from nearfar.errors import InputError

REAL = Path(os.environ.get("NEARFAR_DATA", "data"))


def picture(path, value, size=(32, 32), mode="RGB", **options):
    """An image file of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


def colours(images):
    """The colour of each image's centre pixel."""
    images = images[torch.arange(len(images))]
    return [tuple(i[:, i.shape[1] // 2, i.shape[2] // 2].tolist()) for i in images]


# CIFAR


@pytest.mark.parametrize("name", ["cifar10", "cifar10-jpeg"])
def test_cifar_is_read_from_files(tmp_path, name):
    for part, count in (("train", 3), ("test", 2)):
        for k, kind in enumerate(("cat", "ant")):
            for i in range(count):
                colour = (100 * k, 10 * i, 200 if part == "test" else 0)
                picture(tmp_path / name / part / kind / f"{i}.png", colour)
    data = load_source("cifar10", tmp_path)
    assert data.class_names == ("ant", "cat")
    assert (data.images.shape, data.images.dtype) == ((10, 3, 32, 32), torch.uint8)
    assert (data.test_from, data.labels.tolist()) == (6, [0, 0, 0, 1, 1, 1, 0, 0, 1, 1])
    assert colours(data.images)[:2] == [(100, 0, 0), (100, 10, 0)]
    assert [c[2] for c in colours(data.images)] == [0] * 6 + [200] * 4


def test_cifar_in_torchvision_s_layout_comes_first(tmp_path, monkeypatch):
    picture(tmp_path / "cifar10" / "train" / "cat" / "0.png", 0)
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.arange(5 * 3072, dtype=np.int64).reshape(5, 3072) % 256
    sums = {}
    for name, rows in (("data_batch_1", slice(0, 3)), ("test_batch", slice(3, 5))):
        entry = {"data": pixels[rows].astype(np.uint8), "labels": list(range(5))[rows]}
        content = pickle.dumps(entry)
        (folder / name).write_bytes(content)
        sums[name] = md5(content).hexdigest()
    meta = pickle.dumps({"label_names": [f"c{i}" for i in range(10)]})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setitem(CIFAR10.meta, "md5", md5(meta).hexdigest())
    data = load_source("cifar10", tmp_path)
    assert torch.equal(data.images, torch.tensor(pixels).view(5, 3, 32, 32).to(torch.uint8))
    assert (data.labels.tolist(), data.test_from) == ([0, 1, 2, 3, 4], 3)
    assert data.class_names[9] == "c9"
    (folder / "test_batch").write_bytes(b"half")
    with pytest.raises(InputError, match=r"CIFAR10 in .* is damaged or not whole.*download=True"):
        load_source("cifar10", tmp_path)


def test_cifar_that_is_not_there_or_not_whole(tmp_path):
    with pytest.raises(
        InputError, match="neither torchvision's cifar-100-python nor cifar100/train"
    ):
        load_source("cifar100", tmp_path)
    for kind in ("a", "b"):
        picture(tmp_path / "cifar100" / "train" / kind / "0.png", 0)
    with pytest.raises(InputError, match=r"cifar100/test is missing, or has no sub-folder"):
        load_source("cifar100", tmp_path)
    for kind in ("a", "b"):
        picture(tmp_path / "cifar100" / "test" / kind / "0.png", 0, (32, 30))
    with pytest.raises(InputError, match=r"2 of 4 images .*0.png \(it is 30×32 where 32×32 is exp"):
        load_source("cifar100", tmp_path)


def test_the_real_copies_of_cifar10_and_tiny_imagenet():
    if not (REAL / "cifar10-jpeg").is_dir() or not (REAL / "tiny-imagenet-100").is_dir():
        pytest.skip("$NEARFAR_DATA holds no cifar10-jpeg and tiny-imagenet-100")
    cifar = load_source("cifar10")
    assert (cifar.images.shape, cifar.test_from) == ((60000, 3, 32, 32), 50000)
    assert cifar.labels[50000:].bincount().tolist() == [1000] * 10
    assert cifar.class_names[:2] == ("airplane", "automobile")
    tiny = load_source("tiny_imagenet")
    assert (tiny.images.shape, tiny.test_from) == ((35000, 3, 64, 64), 30000)
    assert tiny.labels[30000:].bincount().tolist() == [50] * 100
    assert tiny.class_names[:2] == ("goldfish", "bullfrog")


# Tiny ImageNet


@pytest.fixture
def tiny(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for k, wnid in enumerate(("n2", "n1")):
        for i in range(2):
            picture(
                root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", (0, 200 * k, 0), (64, 64)
            )
    (root / "train" / "n1" / "n1_boxes.txt").write_text("n1_0.JPEG\t0\t0\t9\t9\n")
    picture(root / "val" / "images" / "val_0.JPEG", 130, (64, 64), "L")
    picture(root / "val" / "images" / "val_1.JPEG", (0, 0, 250), (64, 64))
    annotations = "val_0.JPEG\tn1\t0\t0\t9\t9\nval_1.JPEG\tn2\t1\t1\t5\t5\n"
    (root / "val" / "val_annotations.txt").write_text(annotations)
    (root / "wnids.txt").write_text("n2\nn1\n")
    (root / "words.txt").write_text("n1\tgoldfish, Carassius\nn2\tcrane\nn3\tcrane\n")
    return root


def test_tiny_imagenet_in_its_original_layout(tiny):
    for root in (tiny, tiny.parent):
        data = load_source("tiny_imagenet", root)
        assert data.class_names == ("crane", "goldfish")
        assert data.labels.tolist() == [0, 0, 1, 1, 1, 0]  # val_0 is of n1, as its line says
        assert data.test_from == 4
        centres = torch.tensor(colours(data.images))
        expected = torch.tensor([[0, 0, 0]] * 2 + [[0, 200, 0]] * 2 + [[130] * 3, [0, 0, 250]])
        assert (centres - expected).abs().max() <= 3  # JPEG


def test_names_that_two_classes_share_are_told_apart(tiny):
    (tiny / "words.txt").write_text("n1\tcrane, bird\nn2\tcrane\n")
    assert load_source("tiny_imagenet", tiny).class_names == ("crane (n2)", "crane (n1)")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "val/val_annotations.txt",
            "val_0.JPEG\tn1\n",
            r"disagree about 1 images: .*val_1.JPEG; unpack",
        ),
        (
            "val/val_annotations.txt",
            "val_0.JPEG\tn7\n",
            "must begin with a file's name, a tab and a class",
        ),
        ("val/val_annotations.txt", "../x.JPEG\tn1\n", "must begin with a file's name"),
        ("val/val_annotations.txt", "val_0.JPEG\tn1\nval_0.JPEG\tn2\n", "every file have one line"),
        ("wnids.txt", "n1\nn1\n", "at least two classes, each once, got 2 lines with 1 names"),
        ("wnids.txt", "n1\nn9\n", r"there is no image in .*train/n9/images"),
    ],
)
def test_tiny_imagenet_that_contradicts_itself(tiny, file, text, message):
    (tiny / file).write_text(text)
    with pytest.raises(InputError, match=message):
        load_source("tiny_imagenet", tiny)


def test_tiny_imagenet_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="Tiny ImageNet was not found: no wnids.txt in"):
        load_source("tiny_imagenet", tmp_path)


# A user's own folder


def test_a_folder_s_images_keep_their_native_size(tmp_path):
    torch.manual_seed(3)
    pixels = torch.randint(256, (20, 40, 3), dtype=torch.uint8)
    (tmp_path / "b").mkdir()
    Image.fromarray(pixels.numpy()).save(tmp_path / "b" / "wide.png")
    picture(tmp_path / "a" / "deep" / "tall.PNG", (9, 8, 7), (10, 30))
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    data = load_source("folder", tmp_path)
    assert (data.class_names, data.labels.tolist(), data.test_from) == (("a", "b"), [0, 1], None)
    assert image_sizes(data.images).tolist() == [[30, 10], [20, 40]]
    tall, wide = data.images[torch.arange(2)]
    assert torch.equal(wide, pixels.permute(2, 0, 1))
    assert torch.equal(tall, torch.tensor([9, 8, 7]).view(3, 1, 1).expand(3, 30, 10))


def test_grey_transparent_palette_turned_and_large_images(tmp_path):
    picture(tmp_path / "a" / "0.png", 130, (8, 8), "L")
    picture(tmp_path / "a" / "1.png", (250, 250, 250, 0), (8, 8), "RGBA")
    picture(tmp_path / "a" / "2.gif", 0, (8, 8), "P")
    orientation = Image.Exif()
    orientation[0x0112] = 6  # a quarter turn clockwise
    half = Image.new("RGB", (8, 12))
    half.paste((255, 255, 255), (0, 6, 8, 12))  # the lower half is white; turned: the left
    (tmp_path / "b").mkdir()
    half.save(tmp_path / "b" / "0.jpg", exif=orientation, quality=100, subsampling=0)
    picture(tmp_path / "b" / "1.jpg", (10, 200, 30), (800, 600))
    images = load_source("folder", tmp_path).images
    assert image_sizes(images).tolist() == [[8, 8]] * 3 + [[8, 12], [600, 800]]
    assert colours(images)[:2] == [(130, 130, 130), (0, 0, 0)]
    turned = images[torch.tensor([3])][0]
    assert turned[:, :, :6].min() > 250
    assert turned[:, :, 6:].max() < 5
    assert np.abs(np.subtract(colours(images)[4], (10, 200, 30))).max() <= 3


def test_a_folder_with_its_own_test_part(tmp_path):
    for part, blue in (("train", 10), ("val", 20), ("test", 30)):
        for kind in ("a", "b"):
            picture(tmp_path / part / kind / "0.png", (0, 0, blue))
    data = load_source("folder", tmp_path)
    assert [round(c[2], -1) for c in colours(data.images)] == [10, 10, 20, 20, 30, 30]
    assert (data.test_from, data.labels.tolist()) == (4, [0, 1, 0, 1, 0, 1])
    for kind in ("a", "b"):
        (tmp_path / "test" / kind / "0.png").unlink()
        (tmp_path / "test" / kind).rmdir()
    assert load_source("folder", tmp_path).test_from == 2  # then val is it
    picture(tmp_path / "val" / "c" / "0.png", 0)
    with pytest.raises(InputError, match=r"val/c is a class that .*train does not have"):
        load_source("folder", tmp_path)


def test_a_class_may_be_named_train(tmp_path):
    for kind in ("plane", "train", "test"):
        picture(tmp_path / kind / "0.png", 0)
    assert load_source("folder", tmp_path).class_names == ("plane", "test", "train")


def test_files_that_cannot_be_read_are_named(tmp_path):
    picture(tmp_path / "b" / "fine.png", 0)
    picture(tmp_path / "a" / "cut.jpg", 0, (200, 200))
    whole = (tmp_path / "a" / "cut.jpg").read_bytes()
    (tmp_path / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.full((4, 4), 60000, np.uint16)).save(tmp_path / "a" / "deep.png")
    for i in range(5):
        (tmp_path / "a" / f"empty{i}.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        load_source("folder", tmp_path)
    message = str(caught.value)
    assert message.startswith("7 of 8 images cannot be read: ")
    assert "cut.jpg (image file is truncated" in message
    assert "deep.png (its pixel format I;16 is not one of 8 bits a channel)" in message
    assert "empty2.png" in message
    assert "empty3.png" not in message
    assert "; and 2 more; repair or remove them, or raise max_skipped=0.01" in message


@pytest.mark.parametrize("source", ["folder", "stream_folder"])
@pytest.mark.parametrize(
    ("root", "message"),
    [
        (None, "needs as its root an existing folder with a sub-folder a class, got None"),
        ("nowhere", "existing folder .* got .*nowhere"),
        ("", r"needs at least two sub-folders, one a class, got 1 \(only\)"),
        (
            "empty",
            r"there is no image in .*empty/a \(looked for .*\.jpeg .*\); add some, or remove",
        ),
    ],
)
def test_refusals_of_folders(tmp_path, source, root, message):
    if root == "empty":
        (tmp_path / "empty" / "a").mkdir(parents=True)
        (tmp_path / "empty" / "b").mkdir()
    else:
        picture(tmp_path / "only" / "0.png", 0)
    with pytest.raises(InputError, match=message):
        load_source(source, None if root is None else tmp_path / root)
