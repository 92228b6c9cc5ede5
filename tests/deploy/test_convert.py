"""``convert``: plan, apply, train on, hold against the original, write, and say what happened."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from PIL import Image

from nearfar.auditing import audit
from nearfar.classifiers import InputOptions, load_classifier
from nearfar.conversion import PyramidEnsemble, SILayers, convert_network
from nearfar.data import DataSpec, ScaleDataModule, ScaleProtocol
from nearfar.deploy import CheckSpec, FinetuneSpec, convert
from nearfar.deploy.convert import _batches
from nearfar.errors import InputError
from nearfar.layers import SIConv2d
from nearfar.models import HierarchicalNet, create_model
from nearfar.training import FitSpec, ModelSpec, load_checkpoint, train

DATA = DataSpec(train=200, validation=60, test=80)
SHOWN = ScaleProtocol(canvas=28, content=28)
SHORT = FinetuneSpec(FitSpec(epochs=1, lr=1e-4, keep="last"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain")
    return train(ModelSpec("cnn_small"), DATA, FitSpec(epochs=2), out=out / "run")


def test_a_checkpoint_becomes_its_twin_on_its_own_images(plain, tmp_path):
    result = convert(plain.path, SILayers(scales=(1.0,)), out=tmp_path / "twin")
    assert result.accepted
    assert result.loss == 0  # an SI-layer over scale 1 is the convolution
    assert result.right("converted") == result.right("original")
    assert result.labelled
    again = load_checkpoint(result.path)
    assert again.recipe.model.convert == SILayers(scales=(1.0,))
    assert isinstance(again.model.get_submodule("stages.0.0"), SIConv2d)
    images = ScaleDataModule(DATA).images("test", 1.0)
    torch.testing.assert_close(again.model(images), plain.model(images))
    report = json.loads((tmp_path / "twin" / "report.json").read_text())
    assert report["right"]["original"]["1"] == result.right("original")[1.0]
    assert report["accepted"] is True
    report = (tmp_path / "twin" / "report.md").read_text()
    assert "SI-layer over 1" in report
    assert f"| {100 * result.right('original')[0.5]:.1f} |" in report


def test_test_images_are_those_that_training_put_aside(plain, tmp_path):
    result = convert(plain.path, SILayers(scales=(1.0,)), out=None, check=CheckSpec(images=40))
    assert result.path is None
    data = ScaleDataModule(DATA)
    assert len(result.audit.results["original"].curve.labels) == 40
    every = set(map(tuple, data.images("test", 1.0).flatten(1).tolist()))
    assert every  # and a smaller draw is one of these, whatever was trained on
    whole = convert(plain.path, SILayers(scales=(1.0,)), out=None)
    torch.testing.assert_close(whole.audit.results["original"].curve.labels, data.labels("test"))


def test_what_is_lost_is_said_and_not_accepted(plain, tmp_path):
    result = convert(
        plain.path, SILayers(scales=(0.3,)), out=tmp_path / "worse", check=CheckSpec(max_loss=0.02)
    )
    assert result.loss > 0.02
    assert result.accepted is False
    report = (tmp_path / "worse" / "report.md").read_text()
    assert "NOT ACCEPTED" in report
    assert "2 may be lost" in report
    assert result.path.exists()  # written, to be looked at


def test_new_statistics_come_from_the_training_images():
    torch.manual_seed(0)
    net = create_model("resnet20_cifar", num_classes=10, in_chans=1)
    result = convert(net, "si", inputs=InputOptions(size=28), data=DATA, recalibrate=True, out=None)
    stem = result.network.stem
    with torch.no_grad():
        maps = stem.conv(
            ScaleDataModule(dataclasses.replace(DATA, protocol=SHOWN)).images("train", 1.0)
        )
    torch.testing.assert_close(stem.norm.running_mean, maps.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert result.classifier.input_spec.class_names == tuple(
        "0123456789"
    )  # which weights alone do not say
    assert not torch.allclose(net.stem.norm.running_mean, stem.norm.running_mean, atol=1e-3)


def test_fine_tuning_is_a_training_run_of_the_twin(plain, tmp_path):
    result = convert(plain.path, "si", finetune=SHORT, out=tmp_path / "tuned")
    run = load_checkpoint(tmp_path / "tuned" / "training" / "weights.safetensors")
    assert run.recipe.data.random_scale == (0.4, 2.0)
    for name, tensor in run.model.state_dict().items():
        torch.testing.assert_close(result.network.state_dict()[name], tensor, rtol=0, atol=0)
    assert not torch.equal(
        result.network.get_submodule("stages.0.0").weight,
        plain.model.get_submodule("stages.0.0").weight,
    )
    # Started again it takes up what is there; other settings, or other weights, do not write over it.
    again = convert(plain.path, "si", finetune=SHORT, out=tmp_path / "tuned")
    assert again.right("converted") == result.right("converted")
    with pytest.raises(InputError, match="holds no conversion of these settings"):
        convert(plain.path, SILayers(scales=(1, 2)), finetune=SHORT, out=tmp_path / "tuned")
    for other in (
        {"recalibrate": True},
        {"finetune": dataclasses.replace(SHORT, distill=0.5)},
        {"finetune": dataclasses.replace(SHORT, seed=1)},
    ):
        with pytest.raises(InputError, match="holds no conversion of these settings"):
            convert(plain.path, "si", **{"finetune": SHORT, "out": tmp_path / "tuned", **other})
    record = load_checkpoint(result.path).record
    assert record["data"] == ScaleDataModule(DATA).fingerprint()


def test_an_ensemble_is_trained_as_the_network_that_it_is(plain, tmp_path):
    result = convert(
        plain.path,
        "pyramid-ensemble",
        recalibrate=True,
        finetune=SHORT,
        out=tmp_path / "over",
    )
    assert "keep the statistics of the training" in result.plan.notes[-1]
    assert isinstance(result.network, HierarchicalNet)
    run = load_checkpoint(tmp_path / "over" / "training" / "weights.safetensors")
    assert run.recipe.model.convert is None
    for name, tensor in run.model.state_dict().items():
        torch.testing.assert_close(result.network.net.state_dict()[name], tensor, rtol=0, atol=0)
    whole = load_checkpoint(result.path).model
    images = ScaleDataModule(DATA).images("test", 0.5)
    torch.testing.assert_close(whole(images), result.network(images))


def test_a_learnt_vote_is_learnt(plain):
    result = convert(plain.path, PyramidEnsemble(reduction="learned"), finetune=SHORT, out=None)
    assert result.network.weights.abs().sum() > 0


def test_images_without_labels_teach_by_the_originals_answers(plain, tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    images = ScaleDataModule(DATA).images("train", 1.0)[:120]
    for i, image in enumerate(images):
        parent = folder / "more" if i % 2 else folder
        Image.fromarray((image[0] * 255).byte().numpy()).convert("RGB").save(parent / f"{i:03}.png")
    torch.manual_seed(0)
    net = create_model("cnn_small", num_classes=4, in_chans=3)
    data = DataSpec("unlabelled", folder, train=80, validation=20)
    net_before = {k: v.clone() for k, v in net.state_dict().items()}
    result = convert(
        net,
        "si",
        inputs=InputOptions(size=28),
        data=data,
        recalibrate=True,
        finetune=SHORT,
        out=tmp_path / "twin",
    )
    assert not result.labelled
    assert result.right("original")[1.0] == 1.0  # what the original says is right by definition
    assert net.training
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, net_before[name], rtol=0, atol=0)
    report = (tmp_path / "twin" / "report.md").read_text()
    assert "answers of the original at scale 1" in report
    assert not result.rebuilt
    with pytest.raises(InputError, match=r"from a module that only Python builds \(SmallCNN\)"):
        load_checkpoint(result.path)
    again = load_checkpoint(result.path, convert_network(net, SILayers())[0])
    torch.testing.assert_close(
        again.model(images.expand(-1, 3, -1, -1)[:4]),
        result.network.eval()(images.expand(-1, 3, -1, -1)[:4]),
    )


def test_nothing_is_compared_without_images(tmp_path):
    net = create_model("cnn_small", num_classes=4, in_chans=3)
    result = convert(net, "si", inputs=InputOptions(size=28), out=tmp_path / "twin")
    assert result.accepted is None
    assert result.right("original") == {}
    assert "no images were given" in (tmp_path / "twin" / "report.md").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recalibrate": True, "data": None}, "need images; give data"),
        ({"finetune": True, "data": None}, "need images; give data"),
        ({"data": DataSpec(train=50, normalize="standard")}, "leave data.normalize out"),
        (
            {"data": DataSpec("digits", train=50)},
            "knows 4 classes, digits has 10, beginning with 0, 1, 2",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    net = create_model("cnn_small", num_classes=4, in_chans=3)
    with pytest.raises(InputError, match=message):
        convert(net, "si", inputs=InputOptions(size=28), out=None, **settings)


def test_images_whose_channels_cannot_become_the_network_s_are_refused():
    net = create_model("cnn_small", num_classes=10, in_chans=2)
    with pytest.raises(InputError, match="takes images of 2 channels, those of digits have 1"):
        convert(
            net, "si", data=DataSpec("digits", train=50), inputs=InputOptions(size=28), out=None
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FinetuneSpec(distill=1.5), "distill is a share from 0 to 1, got 1.5"),
        (
            lambda: FinetuneSpec(FitSpec(init="he")),
            "would draw new weights in place of the trained",
        ),
        (lambda: CheckSpec(max_loss=2.0), "max_loss is a fraction"),
        (lambda: CheckSpec(images=0), "at least 1 image is compared, got .* 0 images"),
    ],
)
def test_settings_that_nothing_fits_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_other_classes_are_refused():
    net = create_model("cnn_small", num_classes=4, in_chans=1)
    with pytest.raises(InputError, match="knows 4 classes, digits has 10"):
        convert(net, "si", inputs=InputOptions(size=28), data=DATA, out=None)


def test_images_that_cannot_be_read_are_listed(tmp_path):
    photos = tmp_path / "photos"
    for name, colour in {"a": (200, 0, 0), "b": (0, 200, 0)}.items():
        (photos / name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (16, 16), colour).save(photos / name / f"{i}.png")
    (photos / "a" / "empty.png").write_bytes(b"")
    network = create_model("cnn_small", num_classes=2, in_chans=3).eval()
    settings = {"inputs": InputOptions((0.5,) * 3, (0.5,) * 3, 16), "out": tmp_path / "out"}
    with pytest.raises(
        InputError, match=r"1 of 41 images .* raise max_skipped=0.01 .* listed in .*out"
    ):
        convert(network, "antialias", data=DataSpec("folder", photos), **settings)
    listed = (tmp_path / "out" / "skipped.csv").read_text().splitlines()
    assert listed[0] == "path,reason"
    assert listed[1].startswith(str(photos / "a" / "empty.png"))
    convert(network, "antialias", data=DataSpec("folder", photos, max_skipped=0.05), **settings)
    assert (tmp_path / "out" / "skipped.csv").read_text().splitlines() == listed
    assert (
        "Of 41 files, one cannot be read and is left out"
        in (tmp_path / "out" / "report.md").read_text()
    )


def test_the_list_of_another_folder_s_owner_stays(tmp_path):
    out, photos = tmp_path / "out", tmp_path / "photos"
    out.mkdir()
    for name in ("skipped.csv", "config.yaml"):
        (out / name).write_text("theirs\n")
    for name in ("a", "b"):
        (photos / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(photos / name / "0.png")
    (photos / "a" / "empty.png").write_bytes(b"")
    network = create_model("cnn_small", num_classes=2, in_chans=3).eval()
    settings = {"inputs": InputOptions((0.5,) * 3, (0.5,) * 3, 16), "out": out}
    with pytest.raises(InputError, match="1 of 3 images cannot be read"):
        convert(network, "antialias", data=DataSpec("folder", photos), **settings)
    assert (out / "skipped.csv").read_text() == "theirs\n"


def test_a_folder_of_something_else_is_left_alone(plain, tmp_path):
    (tmp_path / "thesis.tex").write_text("chapter")
    with pytest.raises(InputError, match="not empty and holds no conversion"):
        convert(plain.path, "si", out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_was_converted_is_not_converted_again(plain, tmp_path):
    first = convert(plain.path, "antialias", out=tmp_path / "one")
    with pytest.raises(InputError, match="was converted before, by antialias"):
        convert(first.path, "si", out=tmp_path / "two")


def test_what_can_only_be_asked_is_refused():
    classifier = load_classifier(lambda x: x.mean((2, 3)), size=8)
    with pytest.raises(InputError, match="can be asked but not rebuilt"):
        convert(classifier, "si", out=None)


def test_a_conversion_without_images_does_not_say_what_it_was_trained_on(tmp_path):
    torch.manual_seed(0)
    torch.save(
        create_model("cnn_small", num_classes=10, in_chans=1).state_dict(), tmp_path / "w.pth"
    )
    result = convert(f"cnn_small@{tmp_path / 'w.pth'}", "antialias", out=tmp_path / "twin")
    opened = load_classifier(result.path)
    assert opened.input_spec.class_names is None
    assert opened.checkpoint.data is None
    with pytest.raises(InputError, match="does not say what it was trained on"):
        audit(result.path)
    other = create_model("cnn_small", num_classes=10, in_chans=1)
    torch.save(other.state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match="holds no conversion of these settings"):
        convert(f"cnn_small@{tmp_path / 'w.pth'}", "antialias", out=tmp_path / "twin")


def test_modes_stay_module_by_module():
    net = create_model("resnet20_cifar").train()
    net.stem.norm.eval()
    result = convert(net, "pyramid-ensemble", inputs=InputOptions(size=32), out=None)
    assert result.network.training
    assert not result.network.net.stem.norm.training
    assert result.network.net.stem.conv.training


def test_every_batch_for_statistics_is_about_as_large():
    class Parts:
        def __init__(self, *sizes):
            self.sizes = sizes

        def in_order(self, split):
            return iter([torch.zeros(size, 1) for size in self.sizes])

    def sizes(*parts):
        return [len(batch) for batch in _batches(Parts(*parts))]

    assert sizes(512, 1) == [129, 128, 128, 128]
    assert sizes(512, 512, 200) == [128] * 8 + [200]
    assert sizes(90) == [90]
    assert sizes() == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fine_tuning_says_what_half_precision_needs(dtype):
    net = create_model("cnn_small", in_chans=1).to(dtype)
    with pytest.raises(InputError, match=r"float32 weights on the CPU; convert network\.float\(\)"):
        convert(net, "si", inputs=InputOptions(size=28), data=DATA, finetune=SHORT, out=None)
