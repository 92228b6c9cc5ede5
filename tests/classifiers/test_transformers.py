"""Image classifiers of transformers': the same pixels and logits, and nothing touched but their folder."""

from __future__ import annotations

import json
import os
import socket
import sys
import sysconfig
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

import nearfar
from nearfar.classifiers.transformers_files import preprocessing_of
from nearfar.deploy import WrapSpec, wrap
from nearfar.errors import InputError
from nearfar.models.transformers_nets import TransformersNet

transformers = pytest.importorskip("transformers")
NAMES = ("cat", "dog", "fish")


def tiny_vit(folder, **processor):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(NAMES)),
        label2id={name: i for i, name in enumerate(NAMES)},
    )
    net = transformers.ViTForImageClassification(config).eval()
    torch.nn.init.normal_(net.classifier.weight)
    net.save_pretrained(folder)
    settings = {"size": {"height": 32, "width": 32}, "image_std": [0.2, 0.3, 0.4], **processor}
    transformers.ViTImageProcessor(**settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_vit(tmp_path_factory.mktemp("vit"))


def photo(height=61, width=93):
    noise = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"resample": 3},
        {"do_center_crop": True, "size": {"height": 40, "width": 44}, "crop_size": 32},
        {
            "do_center_crop": True,
            "size": {"shortest_edge": 40},
            "crop_size": {"height": 32, "width": 32},
        },
        {"do_normalize": False},
    ],
)
def test_images_and_logits_are_those_of_its_own_pipeline(settings, tmp_path):
    folder = tiny_vit(tmp_path, **settings)
    opened = nearfar.load_classifier(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    net = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    image = photo()
    expected = processor(image, return_tensors="pt")["pixel_values"]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    shown = opened.input_spec.protocol.render(pixels[None], 1.0)
    normal = shown
    std = torch.ones(3)
    if settings.get("do_normalize", True):
        mean, std = torch.full((3,), 0.5), torch.tensor([0.2, 0.3, 0.4])
        normal = (shown - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    # torchvision rounds tensors between the two passes of a resize, Pillow does not: one grey level.
    steps = ((normal - expected).abs() * 255 * std.view(3, 1, 1)).round()
    assert steps.max() <= 1
    assert steps.mean() < 0.05
    with torch.no_grad():
        direct = net(pixel_values=normal).logits
    torch.testing.assert_close(opened.predict(shown), direct, rtol=1e-5, atol=1e-5)
    assert opened.input_spec.class_names == NAMES


def test_a_local_folder_is_all_that_is_touched(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    paths, watching = [], True

    def note(event, args):
        if watching and event == "open" and isinstance(args[0], str | bytes):
            paths.append(os.fsdecode(args[0]))

    nearfar.load_classifier(folder)  # whatever is imported is imported now
    sys.addaudithook(note)
    nearfar.load_classifier(f"hf:{folder}")
    watching = False
    installed = [*sysconfig.get_paths().values(), "/proc", "/sys", "/dev"]
    installed += [str(Path(nearfar.__file__).parent)]
    others = [p for p in paths if not p.startswith((str(folder), *installed))]
    assert others == []


def test_a_name_on_the_hub_is_fetched_without_pickles_and_code(folder, monkeypatch):
    calls = []

    def snapshot_download(name, revision, allow_patterns):
        calls.append((name, revision, tuple(allow_patterns)))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    opened = nearfar.load_classifier("hf:owner/tiny@v1")
    ((name, revision, patterns),) = calls
    assert (name, revision) == ("owner/tiny", "v1")
    assert all(p.endswith((".json", ".safetensors")) for p in patterns)
    assert isinstance(opened.module.network, TransformersNet)

    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(InputError, match="hf:owner/other cannot be fetched: no route to host"):
        nearfar.load_classifier("hf:owner/other")


def test_it_is_wrapped_saved_and_opened_again(folder, tmp_path):
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 3, 40, 40), dtype=torch.uint8, generator=draw)
    data = nearfar.data.LabelledImages(images, torch.arange(60) % 3, NAMES)
    spec = WrapSpec(sizes=(0.5, 1.0), levels=(0.5, 1.0, 2.0), max_loss=1.0)
    result = wrap(folder, data, 3.0, spec=spec, out=tmp_path / "out")
    assert result.rebuilt
    assert "takes images of one size" in (tmp_path / "out/report.md").read_text()
    loaded = nearfar.load_classifier(result.path)
    batch = torch.rand(5, 3, 32, 32)
    torch.testing.assert_close(loaded.predict(batch), result.classifier.predict(batch))
    exported = nearfar.export(loaded, tmp_path / "vit.pt2")
    assert exported.error <= 1e-4


def test_a_convolutional_one_takes_other_sizes(tmp_path):
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3, layer_type="basic"
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    processor = {
        "size": {"shortest_edge": 28},
        "crop_pct": 0.875,
        "image_processor_type": "ConvNextImageProcessor",
    }
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({**processor, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3})
    )
    opened = nearfar.load_classifier(tmp_path)
    assert opened.input_spec.protocol.canvas_size == (28, 28)
    assert opened.input_spec.protocol.content == 32
    assert opened.predict(torch.rand(2, 3, 20, 33)).shape == (2, 3)
    assert opened.input_spec.class_names is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": {"longest_edge": 9}}, "size must name height and width, or shortest_edge"),
        ({"size": {"shortest_edge": 9}}, "images come out in sizes of their own"),
        ({"size": 9, "do_resize": False}, "images must be resized"),
        ({"size": 9, "do_pad": True}, "got do_pad"),
        ({"size": 9, "resample": 17}, "one of Pillow's filters, got 17"),
    ],
)
def test_processors_that_do_something_else_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        preprocessing_of(settings, "x.json")


def test_folders_that_cannot_be_used_are_refused(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    for key, value in (("auto_map", {"AutoModel": "m.M"}), ("use_pretrained_backbone", True)):
        (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(
            InputError, match=f"has {key}, with which opening it would fetch or run"
        ):
            nearfar.load_classifier(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"cannot be opened .* config.json and model.safetensors"):
        nearfar.load_classifier(tmp_path)
    backbone = tmp_path / "backbone"
    transformers.ViTModel(
        transformers.ViTConfig(
            **{
                k: config[k]
                for k in (
                    "hidden_size",
                    "num_hidden_layers",
                    "num_attention_heads",
                    "intermediate_size",
                    "image_size",
                    "patch_size",
                )
            }
        )
    ).save_pretrained(backbone)
    with pytest.raises(InputError, match=r"has no weights for classifier.* no trained classifier"):
        nearfar.load_classifier(backbone)
    with pytest.raises(InputError, match="says itself how images are normalised"):
        nearfar.load_classifier(folder, size=9)
    with pytest.raises(InputError, match="must name its model_type"):
        nearfar.create_model("transformers", config={})
