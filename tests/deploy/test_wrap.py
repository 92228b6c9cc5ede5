"""wrap: a network over several sizes without training; what it says is so, and the file does it."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from PIL import Image

import nearfar
from nearfar.auditing import AuditSpec, ImageSelection
from nearfar.cli.main import main
from nearfar.conversion import PyramidEnsemble, convert_network
from nearfar.data import DataSpec
from nearfar.deploy import WrapSpec, wrap
from nearfar.deploy.wrap_images import images_to_wrap_on
from nearfar.errors import InputError
from nearfar.models import CascadeNet, HierarchicalNet
from nearfar.models.cascade import vote_of
from nearfar.training import FitSpec, ModelSpec, train

SPEC = WrapSpec(
    sizes=(0.5, 1.0, 2.0),
    levels=(0.5, 0.71, 1.0, 1.41, 2.0),
    choose_on=150,
    check=150,
    max_loss=0.05,
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A checkpoint of a plain net that knows digits at one size."""
    folder = tmp_path_factory.mktemp("digits")
    data = DataSpec(train=700, validation=60, test=300)
    train(ModelSpec("cnn_small"), data, FitSpec(epochs=10, lr=0.01), out=folder)
    return folder / "weights.safetensors"


@pytest.fixture(scope="module")
def wrapped(digits, tmp_path_factory):
    return wrap(digits, budget=2.0, spec=SPEC, out=tmp_path_factory.mktemp("wrap") / "out")


def test_what_it_says_is_what_an_audit_finds(digits, wrapped):
    report = json.loads((wrapped.path.parent / "report.json").read_text())
    held_out = wrapped.audit.results["original"].curve.labels
    assert (wrapped.images, len(held_out)) == (150, 150)
    gain, low, high = report["gain"]
    right = report["right"]
    means = {n: sum(right[n][f"{s:g}"] for s in SPEC.sizes) / 3 for n in right}
    assert gain == pytest.approx(means["converted"] - means["original"])
    assert low < gain < high
    assert gain > 0.05
    before, after = (
        torch.stack([wrapped.audit.results[n].curve.right(s) for s in SPEC.sizes]).float().mean(0)
        for n in ("original", "converted")
    )
    half = 1.96 * (after - before).std() / len(before) ** 0.5
    assert (high - low) / 2 == pytest.approx(float(half), rel=1e-3)
    assert wrapped.cost <= 2.0
    assert report["cost"] == wrapped.cost
    assert wrapped.accepted


def test_the_file_answers_as_the_result_does(wrapped):
    loaded = nearfar.load_classifier(wrapped.path)
    images = torch.rand(20, loaded.input_spec.in_chans, *loaded.input_spec.protocol.canvas_size)
    assert isinstance(loaded.module, HierarchicalNet)
    torch.testing.assert_close(loaded.predict(images), wrapped.classifier.predict(images))


def test_it_is_the_conversion_with_the_same_settings(digits, wrapped):
    original = nearfar.load_classifier(digits)
    method = wrapped.plan.conversion
    assert isinstance(method, PyramidEnsemble)
    twin, _ = convert_network(original.module, method)
    images = torch.rand(20, 1, *original.input_spec.protocol.canvas_size)
    torch.testing.assert_close(twin.eval()(images), wrapped.classifier.predict(images))
    for name, tensor in original.module.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[f"net.{name}"], tensor, rtol=0, atol=0)


def test_it_is_audited_predicted_and_exported_like_any_other(wrapped, tmp_path):
    audit = nearfar.audit(wrapped.path, spec=AuditSpec(scales=(0.5, 1.0), flips=0))
    assert audit.results
    photo = tmp_path / "digit.png"
    Image.new("L", (20, 20), 90).save(photo)
    assert nearfar.predict(wrapped.path, [photo])
    pytest.importorskip("onnxruntime")
    for name in ("wrapped.onnx", "wrapped.pt2"):
        exported = nearfar.export(wrapped.path, tmp_path / name)
        assert exported.error <= 1e-4
        images = torch.rand(8, 1, *wrapped.classifier.input_spec.protocol.canvas_size)
        answers = nearfar.load_classifier(tmp_path / name).predict(images)
        torch.testing.assert_close(
            answers, wrapped.classifier.predict(images), rtol=1e-4, atol=1e-4
        )


def test_a_cascade_costs_the_levels_that_it_looks_at(digits):
    result = wrap(digits, budget=1.3, spec=SPEC, out=None)
    cascade = result.classifier.module
    assert isinstance(cascade, CascadeNet), "a weak test"
    opened = nearfar.load_classifier(digits)
    parts = images_to_wrap_on("", opened, ImageSelection(), 150, 150)
    protocol = opened.input_spec.protocol
    images = protocol.render(parts.every.read(parts.check), 0.5, channels=1)
    images = [
        images,
        *(protocol.render(parts.every.read(parts.check), s, channels=1) for s in (1, 2)),
    ]
    price = {level.scale: level.cost for level in result.levels.levels}
    cost = 0.0
    with torch.no_grad():
        looks = [cascade.look(torch.cat(images), s) for s in cascade.scales]
        for levels in zip(*looks, strict=True):
            for k, scale in enumerate(cascade.scales, start=1):
                cost += price[scale]
                if vote_of(levels[:k], cascade.reduction).exp().max() >= cascade.threshold:
                    break
    assert result.cost == pytest.approx(cost / (3 * 150))
    assert result.cost <= 1.3


def test_without_labels_right_is_what_the_network_says(digits, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    source = nearfar.data.load_source("digits")
    for i, image in enumerate(source.images[:80]):
        Image.fromarray((255 * image[0]).byte().numpy()).save(folder / f"{i}.png")
    spec = dataclasses.replace(SPEC, choose_on=30, check=30)
    result = wrap(
        digits, "unlabelled", spec=spec, selection=ImageSelection(root=folder), out=tmp_path / "out"
    )
    assert not result.labelled
    assert result.right("original")[1.0] == 1.0
    assert "answered as the original does at scale 1" in (tmp_path / "out/report.md").read_text()
    assert nearfar.load_classifier(result.path).input_spec.names() == tuple("0123456789")


def test_a_module_is_read_back_with_the_network(digits, tmp_path):
    module = nearfar.load_classifier(digits).module
    inputs = nearfar.classifiers.InputOptions(size=28)
    spec = dataclasses.replace(SPEC, choose_on=30, check=30)
    result = wrap(module, "digits", spec=spec, inputs=inputs, out=tmp_path / "out")
    assert not result.rebuilt
    fresh, _ = convert_network(module, result.plan.conversion)
    loaded = nearfar.load_checkpoint(result.path, fresh)
    images = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(loaded.model(images), result.classifier.predict(images))


def test_the_command_does_the_same(digits, wrapped, tmp_path, capsys):
    words = ["wrap", str(digits), "--sizes", "0.5,1,2", "--levels", "0.5,0.71,1,1.41,2"]
    words += [
        "--choose_on",
        "150",
        "--check",
        "150",
        "--max_loss",
        "0.05",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "times the network's" in shown
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report == json.loads((wrapped.path.parent / "report.json").read_text())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 0.9}, "at least 1, got 0.9"),
        ({"images": "nowhere"}, "no data set is named 'nowhere'"),
        ({"selection": ImageSelection(count=15)}, "at least 20 images"),
    ],
)
def test_what_it_refuses(digits, settings, message):
    with pytest.raises(InputError, match=message):
        wrap(digits, **settings, out=None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": (1, 1)}, "sizes has a number twice"),
        ({"levels": ()}, "scales is empty"),
        ({"choose_on": 5}, "at least 10 images"),
        ({"max_loss": 1.5}, "max_loss is a fraction from 0 to 1, got 1.5"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        WrapSpec(**settings)
