"""Classifiers that were not made here: the audit of a file is that of what it was made from."""

from __future__ import annotations

import sys

import pytest
import torch
from auditing.test_layers import textured
from torch import nn

from nearfar.auditing import AuditSpec, audit
from nearfar.classifiers import InputOptions, load_classifier

SCALES = (0.5, 1.0, 2.0)


def audited(model, size=None):
    return audit(
        model, textured(40), AuditSpec(scales=SCALES, flips=10), inputs=InputOptions(size=size)
    ).only


def make_net():
    torch.manual_seed(9)  # its answers differ
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 3),
    ).eval()


@pytest.fixture
def net():
    return make_net()


@pytest.fixture
def original(net):
    return audited(net, size=32)


def the_same(found, original):
    assert torch.equal(found.curve.predictions, original.curve.predictions)
    torch.testing.assert_close(found.curve.confidence, original.curve.confidence, atol=1e-5, rtol=0)
    assert found.flips.smaller.tolist() == pytest.approx(
        original.flips.smaller.tolist(), nan_ok=True
    )
    assert found.flips.larger.tolist() == pytest.approx(original.flips.larger.tolist(), nan_ok=True)
    assert found.seconds > 0


def test_a_network(net, original):
    assert original.cost.parameters == sum(p.numel() for p in net.parameters())
    assert original.cost.multiplications == 14 * 14 * 8 * 75 + 32 * 3
    assert len(set(original.curve.predictions.flatten().tolist())) > 1
    # Of a batch of 40, the maps before and after ReLU are alive together, and the batch in its layout.
    maps, batch = 40 * 8 * 14 * 14 * 4, 40 * 3 * 32 * 32 * 4
    assert 2 * maps <= original.memory <= 2 * maps + batch


def test_a_program_of_torch_export(net, original, tmp_path):
    sizes = {0: torch.export.Dim("batch")}
    program = torch.export.export(net, (torch.rand(2, 3, 32, 32),), dynamic_shapes=(sizes,))
    torch.export.save(program, tmp_path / "net.pt2")
    found = audited(str(tmp_path / "net.pt2"))
    the_same(found, original)
    assert found.cost.parameters == original.cost.parameters


def test_a_program_of_one_batch_size(net, original, tmp_path):
    program = torch.export.export(net, (torch.rand(3, 3, 32, 32),))
    torch.export.save(program, tmp_path / "net.pt2")
    found = audited(str(tmp_path / "net.pt2"))
    the_same(found, original)
    assert found.cost is None
    assert "What net.pt2 costs could not be counted" in found.notes[-1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file(net, original, tmp_path):
    pytest.importorskip("onnxruntime")
    sizes = {0: torch.export.Dim("batch")}
    torch.onnx.export(
        net,
        (torch.rand(2, 3, 32, 32),),
        str(tmp_path / "net.onnx"),
        dynamic_shapes=(sizes,),
        dynamo=True,
    )
    found = audited(str(tmp_path / "net.onnx"))
    the_same(found, original)
    assert (found.cost, found.memory, found.layers) == (None, None, None)


def test_a_network_in_a_module(original, tmp_path, monkeypatch):
    (tmp_path / "my_net.py").write_text(
        "import torch\n"
        "from auditing.test_made_elsewhere import make_net\n"
        "net = make_net()\n"
        "def answer(images):\n"
        "    return net(images)\n"
    )
    monkeypatch.chdir(tmp_path)
    the_same(audited("my_net:net", size=32), original)
    found = audited("my_net:answer", size=32)
    the_same(found, original)
    assert (found.cost, found.memory) == (None, None)
    sys.modules.pop("my_net", None)


def test_an_opened_recogniser_is_taken_as_it_is(net, original):
    the_same(audited(load_classifier(net, size=32)), original)
