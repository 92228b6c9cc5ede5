"""``nearfar convert`` as it is typed."""

from __future__ import annotations

import json

import pytest
import torch

from nearfar.cli import main
from nearfar.data import DataSpec
from nearfar.models import create_model
from nearfar.training import FitSpec, ModelSpec, train


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "run"
    data = DataSpec(train=200, validation=60, test=60)
    return train(ModelSpec("cnn_small"), data, FitSpec(epochs=2), out=out).path


def test_a_checkpoint_is_converted_and_compared(capsys, tmp_path, weights):
    out = tmp_path / "twin"
    words = ["convert", str(weights), "si", "--scales", "1", "--out", str(out)]
    assert main(words) == 0
    message = capsys.readouterr().out
    assert "SI-layer over 1" in message
    assert "within the 1 that may be lost" in message
    assert f"nearfar audit {out / 'weights.safetensors'}" in message.replace("\n", "")
    assert json.loads((out / "report.json").read_text())["schema"] == "nearfar.convert/1"
    assert main(["audit", str(out / "weights.safetensors"), "--scales", "1", "--flips", "0"]) == 0


def test_too_much_lost_ends_with_status_1(capsys, tmp_path, weights):
    words = ["convert", str(weights), "si", "--scales", "0.3", "--out", str(tmp_path / "twin")]
    assert main(words) == 1
    assert "NOT ACCEPTED" in capsys.readouterr().out


def test_data_and_fit_are_options(capsys, tmp_path):
    torch.manual_seed(0)
    net = create_model("cnn_small", num_classes=10, in_chans=1)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    words = f"convert cnn_small@{tmp_path / 'w.pth'} antialias --size 28 --mean 0.5 --std 0.5 --data digits"
    words += " --data.train 100 --data.validation 40 --data.test 40 --finetune --fit.epochs 1 --max_loss 1"
    assert main([*words.split(), "--out", str(tmp_path / "twin")]) == 0
    record = json.loads((tmp_path / "twin" / "conversion.json").read_text())
    assert record["data"]["train"] == 100
    assert record["fit"]["epochs"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("convert resnet20_cifar magic", "method must be one of antialias,"),
        ("convert resnet20_cifar si --reduction max", "method 'si' has no reduction"),
        ("convert resnet20_cifar si --finetune", "need images; give data"),
        ("convert resnet20_cifar si --distill 0.5", "give finetune too"),
        ("convert resnet20_cifar si --fit.epochs 77", "give finetune too"),
        ("convert test_vit si", "methods that can: pyramid-ensemble with window='fixed'"),
        ("convert model.onnx si", "no ONNX file at model.onnx"),
    ],
)
def test_what_cannot_be_is_one_line_and_status_2(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_help_is_short_and_layers_are_words(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    assert len(capsys.readouterr().out.splitlines()) < 250
    words = f"convert resnet20_cifar si --layers stages.0.0*,stem* --out {tmp_path / 'twin'}"
    assert main(words.split()) == 0
    assert "3 layers changed" in capsys.readouterr().out
