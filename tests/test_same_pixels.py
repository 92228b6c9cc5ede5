"""Every way in feeds a network the pixels that PIL and torchvision or timm alone make of a file."""

from __future__ import annotations

import dataclasses
import gzip
import io
import pickle
import tarfile
from hashlib import md5

import numpy as np
import pytest
import torch
from pictures import noise
from PIL import Image, ImageOps
from recording import Recorder, as_set, by_pil, files_of
from sklearn.datasets import load_digits
from timm.data import create_transform
from timm.data.transforms import CenterCropOrPad, ResizeKeepRatio
from torch import nn
from torchvision.datasets import CIFAR10, MNIST
from torchvision.transforms import Compose, InterpolationMode, PILToTensor
from torchvision.transforms._presets import ImageClassification

import nearfar
from nearfar.auditing import AuditSpec, ImageSelection
from nearfar.classifiers import InputSpec, load_classifier
from nearfar.classifiers.exported_files import input_spec_path
from nearfar.data import DataSpec, ScaleDataModule, ScaleProtocol
from nearfar.training import FitSpec, ModelSpec

CANVAS = 32
#: Width and height: below the canvas, as large, and above it.
SIZES = ((20, 13), (9, 31), (32, 32), (32, 47), (47, 32), (75, 50), (50, 76), (224, 149))
FORMATS = {"jpg": {"quality": 90}, "png": {}, "webp": {"quality": 80}}
NAMES = ("cat", "dog")


def timm_s(mode, crop_pct=0.9):
    """timm's evaluation transform, without normalisation; its bytes become values from 0 to 1."""
    transform = create_transform(
        (3, CANVAS, CANVAS),
        interpolation="bicubic",
        crop_pct=crop_pct,
        crop_mode=mode,
        mean=(0.5, 0.4, 0.3),
        normalize=False,
    )
    return Compose([transform, lambda pixels: pixels.float() / 255])


UNTOUCHED = Compose([PILToTensor(), lambda pixels: pixels.float() / 255])

#: How a network wants its images: as nearfar says it, and as PIL, torchvision or timm alone do it.
CASES = {
    "longer": (
        ScaleProtocol(CANVAS, 24),
        Compose(
            [
                ResizeKeepRatio(24, longest=1.0, interpolation="bicubic"),
                CenterCropOrPad(CANVAS, fill=0),
                UNTOUCHED,
            ]
        ),
    ),
    "torchvision": (
        ScaleProtocol(CANVAS, 36, "shorter", "bilinear"),
        ImageClassification(
            crop_size=CANVAS,
            resize_size=36,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            interpolation=InterpolationMode.BILINEAR,
        ),
    ),
    "center": (ScaleProtocol(CANVAS, 35, "shorter"), timm_s("center")),
    "squash": (ScaleProtocol(CANVAS, 32, "both"), timm_s("squash", 1.0)),
    "border": (ScaleProtocol(CANVAS, 35, "longer", background=(128, 102, 76)), timm_s("border")),
}
by_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of two classes: every format in every size."""
    root = tmp_path_factory.mktemp("photos") / "train"
    for i, size in enumerate(SIZES):
        for k, (ending, options) in enumerate(FORMATS.items()):
            name = f"{ending}-{size[0]}x{size[1]}.{ending}"
            noise(root / NAMES[(i + k) % 2] / name, 10 * i + k, size[::-1], **options)
    return root.parent


def source_of(kind, photos, folder):
    """The photographs as a source of some kind: its name and its root."""
    if kind in ("folder", "stream_folder"):
        return kind, photos
    if kind == "hfds":
        datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
        datasets.disable_progress_bars()
        return f"hfds/{photos}", folder / "hfds"
    archive_path = folder / "train.tar"
    with tarfile.open(archive_path, "w") as archive:
        for path in files_of(photos):
            name = path.relative_to(photos / "train")
            archive.add(path, str(name))
            if kind == "stream_wds":
                label = str(NAMES.index(name.parts[0])).encode()
                info = tarfile.TarInfo(str(name.with_suffix(".cls")))
                info.size = len(label)
                archive.addfile(info, io.BytesIO(label))
    if kind == "stream_wds":
        (folder / "classes.txt").write_text("\n".join(NAMES))
        return kind, folder
    return kind, archive_path


@by_case
@pytest.mark.parametrize("words", ["folder", "files", "stdin image", "stdin paths"])
def test_predict(photos, case, words):
    protocol, transform = CASES[case]
    paths = files_of(photos)
    recorder = Recorder(protocol)
    if words == "stdin image":
        for path in paths:
            list(nearfar.predict(recorder.classifier, "-", stdin=io.BytesIO(path.read_bytes())))
    elif words == "stdin paths":
        lines = "\n".join(str(path) for path in paths).encode()
        list(nearfar.predict(recorder.classifier, "-", stdin=io.BytesIO(lines), batch_size=5))
    else:
        list(nearfar.predict(recorder.classifier, photos if words == "folder" else paths))
    assert len(recorder.inputs) == len(paths) == len(SIZES) * len(FORMATS)
    for path, image in zip(paths, recorder.inputs, strict=True):
        assert torch.equal(image, by_pil(path, transform)), path.name


@by_case
@pytest.mark.parametrize("kind", ["folder", "stream_folder", "stream_tar", "stream_wds", "hfds"])
def test_audit_and_training(photos, tmp_path, monkeypatch, case, kind):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    protocol, transform = CASES[case]
    source, root = source_of(kind, photos, tmp_path)
    expected = as_set(by_pil(path, transform) for path in files_of(photos))
    recorder = Recorder(protocol)
    nearfar.audit(
        recorder.classifier,
        source,
        AuditSpec(scales=(1.0,), flips=0, batch_size=7),
        selection=ImageSelection(root=root),
    )
    assert as_set(recorder.inputs) == expected
    # Other scales add images, and change none of these.
    other = Recorder(protocol)
    nearfar.audit(
        other.classifier,
        source,
        AuditSpec(scales=(0.5, 1.0, 1.1, 2.0), flips=0),
        selection=ImageSelection(root=root),
    )
    assert expected < as_set(other.inputs)
    assert len(as_set(other.inputs)) == 4 * len(expected)

    spec = DataSpec(source, root, protocol, validation=4, test=4)
    data = ScaleDataModule(spec, batch_size=5)
    batches = [*data.train_dataloader(), *data.val_dataloader()]
    inputs = [image for images, _ in batches for image in images]
    inputs += data.images("test", 1.0)
    assert as_set(inputs) == expected
    assert len(inputs) == len(expected)


def test_processes_that_load_training_batches_make_the_same_pixels(photos):
    protocol, transform = CASES["torchvision"]
    spec = DataSpec("stream_folder", photos, protocol, validation=4, test=4, workers=1)
    data = ScaleDataModule(spec, batch_size=5)
    inputs = [image for images, _ in data.train_dataloader() for image in images]
    expected = as_set(by_pil(path, transform) for path in files_of(photos))
    assert len(inputs) == len(expected) - 8
    assert as_set(inputs) < expected


def test_a_trained_checkpoint_is_shown_the_same_by_audit_and_predict(photos, tmp_path):
    """Trained on a folder, then asked: one figure, whoever asks."""
    protocol, transform = CASES["longer"]
    data = DataSpec("folder", photos, protocol, validation=4, test=4)
    trained = nearfar.train(ModelSpec("cnn_small"), data, FitSpec(epochs=1), out=tmp_path)
    opened = load_classifier(trained.path)
    paths = files_of(photos)
    images = torch.stack([by_pil(path, transform) for path in paths])
    classes = opened.predict(images).argmax(1).tolist()
    predictions = list(nearfar.predict(trained.path, photos))
    assert [prediction.index for prediction in predictions] == classes
    audited = nearfar.audit(
        opened, photos, AuditSpec(scales=(1.0,), flips=0), selection=ImageSelection(count=0)
    ).only.curve
    labels = [NAMES.index(path.parent.name) for path in paths]
    tested = ScaleDataModule(data).indices["test"].tolist()
    assert audited.labels.tolist() == [labels[i] for i in tested]
    assert audited.predictions[0].tolist() == [classes[i] for i in tested]


def network_with(cfg):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    network.pretrained_cfg = {
        "input_size": (3, CANVAS, CANVAS),
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.2, 0.2),
        "interpolation": "bicubic",
        **cfg,
    }
    return network


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
@pytest.mark.parametrize(
    "cfg",
    [
        {"crop_pct": 0.9, "crop_mode": "center"},
        {"crop_pct": 1.0, "crop_mode": "squash"},
        {"crop_pct": 0.9, "crop_mode": "border"},
        {"crop_pct": 0.8, "crop_mode": "center", "interpolation": "bilinear"},
    ],
    ids=lambda cfg: "-".join(map(str, cfg.values())),
)
def test_an_exported_file_s_card(photos, tmp_path, ending, cfg):
    if ending == "onnx":
        pytest.importorskip("onnxruntime", reason="ONNX needs nearfar[export]")
        pytest.importorskip("onnxscript", reason="ONNX needs nearfar[export]")
    file = tmp_path / f"model.{ending}"
    network = network_with(cfg)
    nearfar.export(network, file)
    settings = dict(network.pretrained_cfg)
    size = settings.pop("input_size")
    paths = files_of(photos)
    transform = create_transform(size, **settings, normalize=False)
    expected = [by_pil(path, transform).float() / 255 for path in paths]
    opened = load_classifier(file)
    recorder = Recorder(opened.input_spec.protocol)
    list(nearfar.predict(dataclasses.replace(opened, function=recorder.logits), photos))
    assert all(map(torch.equal, recorder.inputs, expected))
    beside = InputSpec.from_json(input_spec_path(file).read_text(), "the input spec")
    assert beside == opened.input_spec
    # The file itself normalises what it is fed as timm does.
    normalised = create_transform(size, **settings)
    with torch.inference_mode():
        logits = network(torch.stack([by_pil(path, normalised) for path in paths]))
    torch.testing.assert_close(opened.predict(torch.stack(expected)), logits)


@pytest.mark.parametrize("kind", ["turned", "grey", "palette", "CMYK", "transparent"])
def test_files_of_other_kinds(tmp_path, kind):
    path = tmp_path / "a" / ("x.jpg" if kind in ("turned", "CMYK") else "x.png")
    noise(path, 3, (50, 75))
    with Image.open(path) as file:
        image = file.copy()
    exif = Image.Exif()
    if kind == "turned":
        exif[0x0112] = 6
        image.save(path, exif=exif)
    elif kind == "transparent":
        image.putalpha(image.convert("L"))
        image.save(path)
    else:
        image.convert({"grey": "L", "palette": "P", "CMYK": "CMYK"}[kind]).save(path)
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        if kind == "transparent":
            black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            image = Image.alpha_composite(black, image)
        image = image.convert("RGB")
    noise(tmp_path / "b" / "y.png", 4, (9, 9))
    for protocol, transform in CASES.values():
        recorder = Recorder(protocol)
        list(nearfar.predict(recorder.classifier, path))
        assert torch.equal(recorder.inputs[0], transform(image))
        audited = Recorder(protocol, names=("a", "b"))
        nearfar.audit(audited.classifier, tmp_path, AuditSpec(scales=(1.0,), flips=0))
        assert as_set([transform(image)]) < as_set(audited.inputs)


# Named sets


def trained_and_audited(name, root, protocol, in_chans, names):
    """The images of a named set that training and an audit feed a network, as sets."""
    data = ScaleDataModule(
        DataSpec(name, root, protocol, split="official", train=0, validation=2), 5
    )
    batches = [*data.train_dataloader(), *data.val_dataloader()]
    inputs = [image for images, _ in batches for image in images]
    recorder = Recorder(protocol, in_chans, names)
    nearfar.audit(
        recorder.classifier,
        name,
        AuditSpec(scales=(1.0,), flips=0),
        selection=ImageSelection(root=root),
    )
    return as_set(inputs), as_set(recorder.inputs)


def test_digits_are_scikit_learn_s():
    native = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    recorder = Recorder(ScaleProtocol(8, 8), 1, tuple(map(str, range(10))))
    nearfar.audit(recorder.classifier, "digits", AuditSpec(scales=(1.0,), flips=0))
    assert as_set(recorder.inputs) == as_set(native)
    data = ScaleDataModule(DataSpec("digits", protocol=ScaleProtocol(12, 8)))
    batches = [images for images, _ in data.train_dataloader()]
    assert as_set(torch.cat(batches)) < as_set(nn.functional.pad(native, (2, 2, 2, 2)))


def test_mnist_is_torchvision_s(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, part in (("train", slice(0, 8)), ("t10k", slice(8, 12))):
        count = len(pixels[part]).to_bytes(4, "big")
        side = (28).to_bytes(4, "big")
        labels = bytes(i % 2 for i in range(len(pixels[part])))
        images = b"\0\0\x08\x03" + count + side + side + pixels[part].tobytes()
        for kind, content in (
            ("images-idx3", images),
            ("labels-idx1", b"\0\0\x08\x01" + count + labels),
        ):
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(content)
            (raw / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    names = tuple(map(str, range(10)))
    native = [[image for image, _ in MNIST(tmp_path, train)] for train in (True, False)]
    for protocol, transform in ((ScaleProtocol(28, 28), UNTOUCHED), CASES["longer"]):
        expected = tuple(as_set(transform(image) for image in part) for part in native)
        assert trained_and_audited("mnist", tmp_path, protocol, 1, names) == expected


def cifar_files(root):
    for part, count in (("train", 8), ("test", 4)):
        for i in range(count):
            path = root / "cifar10" / part / NAMES[i % 2] / f"{i}.png"
            noise(path, 10 * i + (part == "test"), (32, 32))
    return [
        [Image.open(path) for path in files_of(root / "cifar10" / part)]
        for part in ("train", "test")
    ]


def cifar_batches(root, monkeypatch):
    folder = root / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3072), dtype=np.uint8)
    sums = {}
    for name, rows in (("data_batch_1", slice(0, 8)), ("test_batch", slice(8, 12))):
        content = pickle.dumps({"data": pixels[rows], "labels": [i % 2 for i in range(12)][rows]})
        (folder / name).write_bytes(content)
        sums[name] = md5(content).hexdigest()
    meta = pickle.dumps({"label_names": list(NAMES)})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setitem(CIFAR10.meta, "md5", md5(meta).hexdigest())
    return [[image for image, _ in CIFAR10(str(root), train=train)] for train in (True, False)]


def tiny_imagenet_files(root):
    folder = root / "tiny-imagenet-200"
    annotations = []
    for i in range(12):
        name = f"{i}.JPEG"
        if i < 8:
            path = folder / "train" / NAMES[i % 2] / "images" / name
        else:
            path = folder / "val" / "images" / name
            annotations.append(f"{name}\t{NAMES[i % 2]}\t0\t0\t63\t63\n")
        noise(path, i, (64, 64), quality=85)
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))
    (folder / "wnids.txt").write_text("\n".join(NAMES))
    (folder / "words.txt").write_text("".join(f"{name}\t{name}\n" for name in NAMES))
    return [
        [Image.open(path) for path in files_of(folder / part) if path.suffix == ".JPEG"]
        for part in ("train", "val")
    ]


@pytest.mark.parametrize("kind", ["cifar10 files", "cifar10 batches", "tiny_imagenet"])
def test_named_sets_of_photographs(tmp_path, monkeypatch, kind):
    if kind == "cifar10 files":
        native = cifar_files(tmp_path)
    elif kind == "cifar10 batches":
        native = cifar_batches(tmp_path, monkeypatch)
    else:
        native = tiny_imagenet_files(tmp_path)
    side = native[0][0].width
    for protocol, transform in (
        (ScaleProtocol(side, side), UNTOUCHED),
        (ScaleProtocol(side, side, "shorter", "bilinear"), UNTOUCHED),
        CASES["torchvision"],
        CASES["border"],
    ):
        expected = [as_set(transform(image.convert("RGB")) for image in part) for part in native]
        sets = trained_and_audited(kind.split()[0], tmp_path, protocol, 3, NAMES)
        assert sets == tuple(expected)
