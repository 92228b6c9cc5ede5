"""A cascade as files, one a look: the loop that the docs show answers as the network does."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

import nearfar
from nearfar.classifiers import Classifier, InputSpec
from nearfar.cli.main import main
from nearfar.data import Normalisation, Normalised, ScaleProtocol
from nearfar.deploy import convert, export_looks
from nearfar.errors import InputError
from nearfar.models import CascadeNet, SmallCNN


@pytest.fixture(scope="module")
def loop(pytestconfig):
    """What docs/wrap.md calls the loop."""
    text = (pytestconfig.rootpath / "docs" / "wrap.md").read_text()
    (snippet,) = [
        s for s in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class Cascade" in s
    ]
    names = {}
    exec(compile(snippet, "wrap.md", "exec"), names)
    return names["Cascade"]


def cascade_over(net, reduction, threshold):
    whole = CascadeNet(net, (1.0, 0.5, 1.5), reduction, "image", 1.7, threshold)
    whole = Normalised(whole, Normalisation((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))).eval()
    spec = InputSpec("cascade", 3, ScaleProtocol(canvas=24, content=24), 4)
    return Classifier(spec, whole, whole)


@pytest.mark.parametrize("reduction", ["logsumexp", "mean", "max"])
def test_the_loop_of_the_docs_answers_as_the_network_does(reduction, loop, tmp_path):
    pytest.importorskip("onnxruntime")
    draw = torch.Generator().manual_seed(2)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(27, 4))
    nn.init.normal_(net[2].weight, std=1.5, generator=draw)
    images = nn.functional.interpolate(torch.rand(60, 3, 5, 5, generator=draw), size=(24, 24))
    cascade = cascade_over(net, reduction, 0.8)
    results = export_looks(cascade, tmp_path / "looks")
    assert len(results) == 3
    assert max(result.error for result in results) <= 1e-4
    runs = []
    cascade.module.network.net.register_forward_hook(lambda _, i, __: runs.append(len(i[0])))
    expected = cascade.predict(images).numpy()
    assert len(runs) > 1, "a weak test"
    assert runs[1] < 60
    answers = loop(tmp_path / "looks")(images.numpy())
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-4)


def test_one_file_has_the_same_answers(tmp_path):
    torch.manual_seed(0)
    cascade = cascade_over(SmallCNN(num_classes=4, in_chans=3), "logsumexp", 0.26)
    images = torch.rand(7, 3, 24, 24)
    exported = nearfar.export(cascade, tmp_path / "one.pt2")
    assert exported.error <= 1e-4
    answers = nearfar.load_classifier(tmp_path / "one.pt2").predict(images)
    torch.testing.assert_close(answers, cascade.predict(images), rtol=1e-4, atol=1e-4)
    parts = export_looks(cascade, tmp_path / "looks", ending=".pt2")
    look = nearfar.load_classifier(parts[1].path).predict(images)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    direct = cascade.module.network.look((images - mean) / std, 0.5)
    torch.testing.assert_close(look, direct, rtol=1e-4, atol=1e-4)


def test_the_command_writes_what_a_checkpoint_looks_at(tmp_path, capsys):
    method = nearfar.conversion.PyramidEnsemble((1.0, 0.5), threshold=0.7, temperature=2.0)
    convert("cnn_small", method, out=tmp_path / "twin")
    weights = str(tmp_path / "twin" / "weights.safetensors")
    assert main(["export", weights, "--looks", "pt2", "--out", str(tmp_path / "looks")]) == 0
    rule = json.loads((tmp_path / "looks" / "cascade.json").read_text())
    assert rule["looks"] == ["look1.pt2", "look2.pt2"]
    assert (rule["scales"], rule["threshold"]) == ([1.0, 0.5], 0.7)
    assert main(["export", weights, "--looks", "pt2", "--size", "9", "--out", str(tmp_path)]) == 2
    assert "leave out mean" in capsys.readouterr().err


def test_what_it_refuses(tmp_path):
    with pytest.raises(InputError, match="cnn_small is no cascade and has no looks"):
        export_looks("cnn_small", tmp_path)
    with pytest.raises(InputError, match="ending must be one of .onnx, .pt2, got '.pb'"):
        export_looks("cnn_small", tmp_path, ending=".pb")
