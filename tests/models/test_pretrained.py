"""The weights that come with the package know what they should, and open without network."""

from __future__ import annotations

import socket

import pytest
import timm
import torch

import nearfar
from nearfar import InputError
from nearfar.auditing import AuditSpec
from nearfar.classifiers import load_classifier
from nearfar.data import load_source
from nearfar.models import create_model
from nearfar.pretrained import (
    list_pretrained,
    list_samples,
    pretrained_config,
    pretrained_file,
    sample_folder,
)
from nearfar.training import load_checkpoint

NAMES = list_pretrained()
#: Right answers on 100 sample images that each net has at least; measured: see results/pretrained.json.
RIGHT_AT_LEAST = {
    "cnn_mnist_scale": 90,
    "si_mnist_scale": 90,
    "zoom_digit": 93,
    "resnet20_cifar": 70,
    "hierarchical_resnet20_cifar": 70,
    "cnn_tiny": 25,
}
SAMPLES = dict.fromkeys(("cnn_mnist_scale", "si_mnist_scale", "zoom_digit"), "sample_digits") | {
    "resnet20_cifar": "sample_cifar10",
    "hierarchical_resnet20_cifar": "sample_cifar10",
    "cnn_tiny": "sample_tiny",
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_there_are_the_promised_ones_in_six_megabytes():
    assert set(NAMES) == set(RIGHT_AT_LEAST)
    files = [pretrained_file(name) for name in NAMES]
    assert sum(file.stat().st_size for file in files) < 6e6
    assert all(file.with_suffix(".md").is_file() for file in files)


@pytest.mark.parametrize("name", NAMES)
def test_each_knows_its_sample_images(name):
    classifier = load_classifier(f"{name}@pretrained")
    samples = load_source(SAMPLES[name])
    assert classifier.input_spec.class_names == samples.class_names
    images = samples.images[:].float() / 255
    with torch.inference_mode():
        answers = classifier.module(images).argmax(1)
    assert (answers == samples.labels).sum() >= RIGHT_AT_LEAST[name]


@pytest.mark.parametrize("name", NAMES)
def test_timms_way_and_ours_are_one(name):
    """``create_model`` gives the bare net; opened as a classifier it normalises as in training."""
    bare = create_model(name, pretrained=True).eval()
    record = load_checkpoint(pretrained_file(name)).record
    cfg = bare.pretrained_cfg
    images = load_source(SAMPLES[name]).images[:4].float() / 255
    whole = load_classifier(f"{name}@pretrained").module
    expected = whole(images)
    torch.testing.assert_close(load_classifier(bare).module(images), expected)
    if record["normalisation"]:
        mean, std = (torch.tensor(cfg[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
        torch.testing.assert_close(bare((images - mean) / std), expected)
        assert not torch.allclose(bare(images), expected, atol=1e-2)
    by_timm = timm.create_model(f"nearfar_{name}", pretrained=True).eval()
    for key, tensor in bare.state_dict().items():
        torch.testing.assert_close(by_timm.state_dict()[key], tensor, rtol=0, atol=0)


def test_another_number_of_classes_gets_a_new_classifier():
    net = create_model("resnet20_cifar", pretrained=True, num_classes=3).eval()
    trained = create_model("resnet20_cifar", pretrained=True).state_dict()
    assert net(torch.rand(1, 3, 32, 32)).shape == (1, 3)
    same = [key for key, tensor in net.state_dict().items() if torch.equal(tensor, trained[key])]
    assert set(trained) - set(same) == {"head.fc.weight", "head.fc.bias"}


def test_without_pretrained_the_weights_are_random():
    trained = create_model("resnet20_cifar", pretrained=True).state_dict()["stem.conv.weight"]
    assert not torch.equal(create_model("resnet20_cifar").state_dict()["stem.conv.weight"], trained)
    # ... and such a net is not normalised, although its configuration names figures.
    assert load_classifier(create_model("resnet20_cifar")).module.__class__.__name__ != "Normalised"


def test_its_levels_can_be_others():
    net = create_model("hierarchical_resnet20_cifar", pretrained=True, scales=(0.5, 1.0))
    assert net.scales == (0.5, 1.0)
    default = create_model("hierarchical_resnet20_cifar", pretrained=True)
    options = pretrained_config("hierarchical_resnet20_cifar")["options"]
    assert list(default.scales) == options["scales"]
    assert default.window == options["window"]


def test_the_scale_aware_twin_holds_where_the_plain_net_falls():
    twins = ["resnet20_cifar@pretrained", "hierarchical_resnet20_cifar@pretrained"]
    audited = nearfar.audit(twins, "sample_cifar10", AuditSpec(scales=(0.5, 1.0, 2.0), flips=0))
    plain, aware = (model.curve for model in audited.results.values())
    assert aware.accuracy(0.5) > plain.accuracy(0.5) + 0.1
    assert aware.accuracy(2.0) > plain.accuracy(2.0) + 0.2


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            lambda: create_model("lenet5", pretrained=True),
            "lenet5 has no pretrained .* come with .*zoom",
        ),
        (lambda: load_classifier("zoom_digit@pretrained", size=64), "leave"),
        (
            lambda: sample_folder("sample_cats"),
            "no sample images named 'sample_cats'; there are sample_",
        ),
        (
            lambda: load_source("sample_digits", "somewhere"),
            "come with the package; leave root out",
        ),
    ],
)
def test_what_cannot_be_is_refused(action, message):
    with pytest.raises(InputError, match=message):
        action()


def test_sample_images_are_asked_by_name():
    answers = list(nearfar.predict("resnet20_cifar@pretrained", ["sample_cifar10"]))
    assert len(answers) == 100
    assert {"sample_cifar10", "sample_digits", "sample_tiny"} == set(list_samples())
