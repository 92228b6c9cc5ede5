from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nearfar
from nearfar.classifiers import Classifier, InputSpec, load_classifier
from nearfar.classifiers.exported_files import input_spec_path
from nearfar.cli import main
from nearfar.data import DataSpec, ScaleProtocol
from nearfar.deploy import export
from nearfar.deploy.capture import Openness
from nearfar.deploy.checking import shapes_to_try
from nearfar.deploy.formats import format_of
from nearfar.errors import InputError
from nearfar.models import create_model
from nearfar.training import FitSpec, ModelSpec, TrainerSpec
from nearfar.training.checkpoint import save_checkpoint
from nearfar.training.specs import Recipe

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
runtime = pytest.importorskip("onnxruntime")

REAL = Path(os.environ.get("NEARFAR_DATA", "data"))


class Small(nn.Module):
    """A classifier of images of any size; with some of what differs between training and use."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.drop(self.norm(self.conv(x)).relu().mean((2, 3))))


class Resizing(Small):
    """Resizes in a way that ONNX does not have, and that its exporter takes for another."""

    def forward(self, x):
        return super().forward(F.interpolate(x, scale_factor=0.4, mode="bilinear", antialias=True))


class OneSize(nn.Module):
    """Reads its images as one long row."""

    def __init__(self, batch=-1):
        super().__init__()
        self.fc = nn.Linear(3 * 16 * 16, 4)
        self.batch = batch

    def forward(self, x):
        return self.fc(x.reshape(self.batch, 3 * 16 * 16))


class Choosing(Small):
    """What it does depends on what it sees."""

    def forward(self, x):
        return super().forward(x * 2 if x.sum() > 400 else x)


@pytest.fixture
def checkpoint(tmp_path):
    """One of ours, with normalisation, as training writes it."""
    network = create_model("si_cnn_small", num_classes=3, in_chans=1)
    recipe = Recipe(
        ModelSpec("si_cnn_small"),
        DataSpec(source="digits", protocol=ScaleProtocol(canvas=24, content=12)),
        FitSpec(),
        seed=0,
        trainer=TrainerSpec(),
    )
    path = tmp_path / "weights.safetensors"
    record = {
        "recipe": recipe.as_dict(),
        "in_chans": 1,
        "class_names": ["nought", "one", "two"],
        "normalisation": {"mean": [0.2], "std": [0.3]},
    }
    save_checkpoint(path, network, record)
    return path


# What is written


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_a_checkpoint_leaves_with_open_sizes_and_its_card(checkpoint, ending, tmp_path):
    out = tmp_path / "out" / f"digits.{ending}"
    result = export(checkpoint, out)
    assert (result.path, result.input_spec_path) == (out, input_spec_path(out))
    assert (result.openness, result.notes) == (Openness(True, True), ())
    assert result.error < 1e-5
    assert result.shapes == shapes_to_try(result.input_spec, result.openness)
    # One file and its input spec: weights are inside.
    assert {p.name for p in out.parent.iterdir()} == {out.name, f"{out.name}.json"}
    before, after = load_classifier(checkpoint), load_classifier(out)
    assert (
        after.input_spec
        == result.input_spec
        == InputSpec("si_cnn_small", 1, ScaleProtocol(24, 12), 3, ("nought", "one", "two"), True)
    )
    assert InputSpec.from_json(result.input_spec_path.read_text(), "beside") == result.input_spec
    for shape in ((1, 1, 24, 24), (5, 1, 24, 24), (2, 1, 31, 40), (1, 1, 17, 24)):
        images = torch.rand(shape)
        torch.testing.assert_close(
            after.predict(images), before.predict(images), rtol=1e-4, atol=1e-5
        )


def test_shapes_compared_are_odd_and_oblong():
    input_spec = InputSpec("x", 3, ScaleProtocol(canvas=64, content=64), 2)
    assert shapes_to_try(input_spec, Openness()) == (
        (1, 3, 64, 64),
        (3, 3, 64, 64),
        (2, 3, 81, 64),
        (1, 3, 64, 49),
        (2, 3, 49, 81),
    )
    assert shapes_to_try(input_spec, Openness(image=False)) == ((1, 3, 64, 64), (3, 3, 64, 64))
    assert shapes_to_try(input_spec, Openness(batch=False, image=False)) == ((1, 3, 64, 64),)


def test_normalisation_is_inside(tmp_path):
    network = Small().eval()
    opened = load_classifier(network, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1), size=16)
    export(opened, tmp_path / "x.onnx")
    images = torch.rand(2, 3, 16, 16)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.1)))
    session = runtime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    (given,), (put_out,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("images", ["batch", 3, "height", "width"])
    assert put_out.name == "logits"
    (found,) = session.run(None, {"images": images.numpy()})
    expected = network((images - mean) / std).detach()
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-5)


def test_the_network_stays_as_it_was(tmp_path):
    network = Small().double().train()
    network.norm.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    opened = load_classifier(network, size=16)
    result = export(opened, tmp_path / "x.pt2")
    assert [part.training for part in network.modules()] == [True, True, False, True, True]
    assert all(p.requires_grad and p.dtype == torch.float64 for p in network.parameters())
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())
    assert result.error == 0
    images = torch.rand(3, 3, 16, 16)
    answers = load_classifier(tmp_path / "x.pt2").predict(images)
    torch.testing.assert_close(answers, opened.predict(images), rtol=1e-5, atol=1e-6)


def test_a_program_can_become_onnx(tmp_path):
    first = export(Small().eval(), tmp_path / "x.pt2", size=16)
    second = export(first.path, tmp_path / "x.onnx")
    assert second.openness == first.openness
    assert second.input_spec == first.input_spec


# What cannot be left open


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_one_size_is_said(ending, tmp_path):
    out = tmp_path / f"x.{ending}"
    result = export(OneSize(), out, size=16)
    assert result.openness == Openness(batch=True, image=False)
    assert result.shapes == ((1, 3, 16, 16), (3, 3, 16, 16))
    (note,) = result.notes
    assert note == (
        "The image size is fixed, because with any number of images of any size: the network takes images "
        "of 16×16 only."
    )
    again = load_classifier(out)
    assert (again.input_spec.any_size, again.batch) == (False, None)
    assert again.predict(torch.rand(4, 3, 16, 16)).shape == (4, 4)


def test_a_transformer_s_one_size_is_said(tmp_path):
    import timm

    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, num_classes=4, depth=1, embed_dim=24
    )
    result = export(network, tmp_path / "x.pt2", size=32)
    assert result.openness == Openness(batch=True, image=False)
    assert result.notes == (
        "The image size is fixed: VisionTransformer takes images of one size only.",
    )
    assert not result.input_spec.any_size


def test_one_image_at_a_time_is_said(tmp_path):
    result = export(OneSize(batch=1), tmp_path / "x.pt2", size=16)
    assert result.openness == Openness(batch=False, image=False)
    assert [note.split(",")[0] for note in result.notes] == [
        "The image size is fixed",
        "The number of images is fixed",
    ]
    again = load_classifier(result.path)
    assert again.batch == 1
    images = torch.rand(3, 3, 16, 16)
    one_by_one = torch.cat([again.predict(image[None]) for image in images])
    torch.testing.assert_close(again.predict(images), one_by_one)


# What is not written


def test_answers_that_differ_are_not_written(tmp_path):
    out = tmp_path / "x.onnx"
    export(Small().eval(), out, size=32)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    message = (
        r"Resizing is not exported: the exported file's answers to 1×3×32×32 differ by [\d.e-]+ of the "
        r"largest, where the tolerance is 0.0001; raise tolerance"
    )
    with pytest.raises(InputError, match=message) as caught:
        export(Resizing().eval(), out, size=32)
    assert 1e-4 < float(re.search(r"differ by ([\d.e-]+)", str(caught.value))[1]) < 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    # With size= in place of scale_factor= the same is exported: see the twins. As a program it is right.
    assert export(Resizing().eval(), tmp_path / "x.pt2", size=32).error == 0


def test_a_higher_tolerance_lets_it_through(tmp_path):
    result = export(Resizing().eval(), tmp_path / "x.onnx", size=32, tolerance=0.9)
    assert 1e-4 < result.error < 0.9


def test_what_depends_on_its_values_cannot_be_exported(tmp_path):
    with pytest.raises(InputError, match="Choosing cannot be exported: .*data-dependent"):
        export(Choosing().eval(), tmp_path / "x.pt2", size=16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.pt", "x", "x.onnx.zip", "x.safetensors"])
def test_other_endings_are_refused(name, tmp_path):
    with pytest.raises(InputError, match=r"out must end in \.onnx .* or \.pt2"):
        export(Small(), tmp_path / name, size=16)


@pytest.mark.parametrize("tolerance", [0, -1, float("nan")])
def test_a_tolerance_is_above_0(tolerance, tmp_path):
    with pytest.raises(InputError, match="tolerance must be above 0, got"):
        export(Small(), tmp_path / "x.pt2", size=16, tolerance=tolerance)


def test_what_can_only_be_asked_is_refused(tmp_path):
    input_spec = InputSpec("oracle", 3, ScaleProtocol(canvas=16, content=16), 4)
    with pytest.raises(InputError, match=r"oracle can only be asked, not exported: export the net"):
        export(Classifier(input_spec, lambda images: images), tmp_path / "x.pt2")


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_only_earlier_exports_are_written_over(ending, tmp_path):
    out = tmp_path / f"x.{ending}"
    out.write_bytes(b"a letter")
    with pytest.raises(InputError, match=f"x.{ending} is a file that nearfar has not exported"):
        export(Small(), out, size=16)
    assert out.read_bytes() == b"a letter"
    out.unlink()
    out.mkdir()
    with pytest.raises(InputError, match=f"x.{ending} is a folder"):
        export(Small(), out, size=16)
    out.rmdir()
    input_spec_path(out).write_text("{}")
    with pytest.raises(InputError, match=f"x.{ending}.json is a file that nearfar has not exp"):
        export(Small(), out, size=16)
    input_spec_path(out).unlink()
    first = export(Small().eval(), out, size=16)
    content = out.read_bytes()
    second = export(Small().eval(), out, size=24)
    assert (first.input_spec.protocol.canvas, second.input_spec.protocol.canvas) == (16, 24)
    assert out.read_bytes() != content


def test_another_s_onnx_file_is_not_written_over(tmp_path):
    out = tmp_path / "x.onnx"
    export(Small().eval(), out, size=16)
    model = onnx.load(out)
    del model.metadata_props[:]
    onnx.save(model, out)
    input_spec_path(out).unlink()
    with pytest.raises(InputError, match="not exported, and would be written over"):
        export(Small(), out, size=16)


def test_more_than_an_onnx_file_holds_is_refused():
    with torch.device("meta"):
        network = nn.Linear(2**15, 2**14)
    with pytest.raises(InputError, match=r"less than 2 GiB, and the network's numbers take 2\.0"):
        format_of(Path("x.onnx")).prepare(network, Path("x.onnx"))
    format_of(Path("x.pt2")).prepare(network, Path("x.pt2"))


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    with pytest.raises(InputError, match=r"x\.onnx needs onnxscript, which is not installed: pip"):
        export(Small(), tmp_path / "x.onnx", size=16)


# Real weights, and the command


def test_resnet20_with_somebody_s_weights(tmp_path):
    weights = REAL / "pretrained" / "resnet20-cifar10-12fca82f.th"
    if not weights.is_file():
        pytest.skip("no real weights")
    figures = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    result = nearfar.export(f"resnet20_cifar@{weights}", tmp_path / "x.onnx", **figures)
    assert (result.openness, result.input_spec.protocol.canvas) == (Openness(), 32)
    assert result.error < 1e-4


def test_the_command_says_what_it_did(checkpoint, tmp_path, capsys):
    out = tmp_path / "x.pt2"
    steps = []
    export(checkpoint, out, progress=steps.append)
    assert [step.task for step in steps] == [
        "opening",
        "following the network",
        "comparing",
        "written",
    ]
    assert main(["export", str(checkpoint), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    shown = " ".join(said.out.split())
    assert f"{out} takes any number of images of any size; its input spec is in it" in shown
    assert "Its answers differ from the network's by" in shown
    assert "(on random images of 1×1×24×24, 3×1×24×24, 2×1×31×24" in shown
    assert f"nearfar predict {out} IMAGE" in shown


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    words = ["export", "cnn_small", "--out", str(tmp_path / "x.tar"), "--mean", "0.5", "--std=0.2"]
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "out must end in .onnx" in said.err


def test_answers_differ_by_their_share():
    from nearfar.deploy.checking import DifferentError, checked

    input_spec = InputSpec("x", 3, ScaleProtocol(canvas=8, content=8), 2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    for error, fine in ((0.5e-3, True), (2e-3, False), (np.nan, False)):

        def answer(images, error=error):
            exact = network(images)
            off = exact.clone()
            off[0, 0] += error * exact.abs().max()
            return off

        if fine:
            found = checked(network, answer, input_spec, Openness(image=False), 1e-3)
            assert found.error == pytest.approx(error, rel=1e-2)
        else:
            with pytest.raises(DifferentError, match="differ by"):
                checked(network, answer, input_spec, Openness(image=False), 1e-3)


def test_what_is_exported_as_a_program_opens_again(tmp_path):
    """Its windows' positions are sizes that are no whole numbers."""
    path = tmp_path / "zoom.pt2"
    export("zoom_digit@pretrained", path)
    images = torch.rand(2, 1, 28, 28)
    expected = load_classifier("zoom_digit@pretrained").predict(images)
    torch.testing.assert_close(
        load_classifier(path).predict(images), expected, atol=1e-4, rtol=1e-4
    )


def test_a_program_that_would_not_be_opened_is_not_written(tmp_path, monkeypatch):
    def refuse(path):
        raise InputError(f"{path} is not read")

    monkeypatch.setattr("nearfar.deploy.formats.check_program", refuse)
    with pytest.raises(InputError, match="is not read"):
        export(Small(), tmp_path / "small.pt2", size=16)
    assert list(tmp_path.iterdir()) == []
