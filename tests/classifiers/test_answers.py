"""Answers that are not one logit a class, in half precision, or to images with the channels last."""

from __future__ import annotations

import logging

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

import nearfar
from nearfar.auditing import AuditSpec, audit
from nearfar.classifiers import InputOptions, load_classifier
from nearfar.conversion import convert_network
from nearfar.deploy import convert, predict
from nearfar.errors import InputError
from nearfar.models import HierarchicalNet

SIZE = 16


class Net(nn.Module):
    """Ten numbers an image, made into what ``last`` makes of them."""

    def __init__(self, last=None, classes=10):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.fc, self.last = nn.Linear(12, classes), last or nn.Identity()
        self.fc.weight.data *= 400

    def features(self, x):
        return self.conv(x).relu().mean((2, 3))

    def forward(self, x):
        return self.last(self.fc(self.features(x)))


class TwoOutputs(Net):
    """Features and logits, under names or in a tuple."""

    def __init__(self, names=None):
        super().__init__()
        self.names = names

    def forward(self, x):
        features = self.features(x)
        outputs = (features, self.fc(features))
        return outputs if self.names is None else dict(zip(self.names, outputs, strict=True))


@pytest.fixture
def images():
    return torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def logits_of(net, images):
    with torch.no_grad():
        return net.eval()(images)


def onnx_file(net, path, names=("logits",)):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    torch.onnx.export(
        net.eval(), (torch.rand(2, 3, SIZE, SIZE),), path, dynamo=True, verbose=False,
        output_names=list(names), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
    )  # fmt: skip
    return path


def confidences(model, images, **options):
    opened = load_classifier(model, size=SIZE, **options)
    return opened.predict(images).softmax(1)


@pytest.mark.parametrize("kind", ["module", "function", "onnx", "pt2"])
def test_probabilities_are_taken_for_what_they_are(kind, images, tmp_path, caplog):
    net = Net(nn.Softmax(1))
    expected = logits_of(net, images)
    assert expected.max() > 0.9, "sure enough for softmax of softmax to show"
    model = net
    if kind == "function":
        model = lambda x: net(x)  # noqa: E731 (a function, and no module)
    elif kind == "onnx":
        model = onnx_file(net, tmp_path / "net.onnx", ["probabilities"])
    elif kind == "pt2":
        model = tmp_path / "net.pt2"
        dynamic = ({0: torch.export.Dim.DYNAMIC},)
        program = torch.export.export(net, (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=dynamic)
        torch.export.save(program, model)
    options = {} if kind in ("onnx", "pt2") else {"size": SIZE}
    with caplog.at_level(logging.WARNING):
        opened = load_classifier(model, **options)
    torch.testing.assert_close(opened.predict(images).softmax(1), expected, atol=1e-5, rtol=1e-4)
    remarks = [
        r.message for r in caplog.records if "probabilities (each row sums to 1)" in r.message
    ]
    assert len(remarks) == 1
    # A user who knows better is believed.
    as_they_are = load_classifier(model, answers="logits", **options).predict(images)
    torch.testing.assert_close(as_they_are, expected, atol=1e-5, rtol=1e-4)


def test_logits_and_log_probabilities_stay_as_they_are(images):
    for last in (nn.Identity(), nn.LogSoftmax(1)):
        net = Net(last)
        opened = load_classifier(net, size=SIZE)
        assert opened.module is net
        assert opened.answers_assumed == ""
        torch.testing.assert_close(opened.predict(images), logits_of(net, images))


def test_probabilities_in_predict_and_calibration(tmp_path):
    net = Net(nn.Softmax(1))
    for number in range(10):
        values = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        (tmp_path / str(number)).mkdir(exist_ok=True)
        PIL.Image.fromarray(values).save(tmp_path / str(number) / f"{number}.png")
    (first, *_) = predict(net, [tmp_path / "0" / "0.png"], size=SIZE)
    pixels = np.asarray(PIL.Image.open(tmp_path / "0" / "0.png"))
    expected = logits_of(net, torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255)
    assert first.confidence == pytest.approx(float(expected.max()), abs=1e-5)
    plain = Net()
    options = {"inputs": InputOptions(size=SIZE)}
    spec = AuditSpec(scales=(1.0, 0.5), flips=0)
    results = audit({"softmax": net, "plain": plain}, tmp_path, spec, **options).results
    for figure in ("confidence", "ece"):
        values = [results[name].curve.figure(figure, 0.5) for name in ("softmax", "plain")]
        assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_the_weights_of_a_converted_module_fit_the_module(images, tmp_path):
    net = Net(nn.Softmax(1))
    result = convert(net, "si", inputs=InputOptions(size=SIZE), out=tmp_path / "twin")
    twin, _ = convert_network(Net(nn.Softmax(1)), "si", SIZE)
    twin.fc.weight.data.zero_()
    opened = nearfar.load_checkpoint(tmp_path / "twin" / "weights.safetensors", twin)
    torch.testing.assert_close(
        opened.model(images), result.classifier.predict(images).softmax(1), atol=1e-5, rtol=1e-4
    )


def test_an_ensemble_of_probabilities_votes_with_them(images):
    net, plain = Net(nn.Softmax(1)), Net()
    scales = (0.5, 1.0)
    result = convert(
        net, nearfar.conversion.PyramidEnsemble(scales), inputs=InputOptions(size=SIZE), out=None
    )
    expected = HierarchicalNet(plain, scales, window="image").eval()
    with torch.no_grad():
        torch.testing.assert_close(
            result.classifier.predict(images).softmax(1), expected(images).softmax(1),
            atol=1e-5, rtol=1e-4,
        )  # fmt: skip


@pytest.mark.parametrize("last", [None, nn.Sigmoid()])
def test_one_number_tells_two_classes_apart(last, images):
    net = Net(last, classes=1)
    net.fc.bias.data += 2  # the plain net's numbers leave 0 to 1, so they are logits
    number = logits_of(net, images)[:, 0]
    probability = number if last else number.sigmoid()
    answers = "probabilities" if last else None
    opened = load_classifier(net, size=SIZE, answers=answers)
    assert opened.input_spec.num_classes == 2
    shares = opened.predict(images).softmax(1)
    torch.testing.assert_close(shares[:, 1], probability, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(shares.sum(1), torch.ones(5))


def test_one_number_from_0_to_1_has_to_be_said():
    net = Net(nn.Sigmoid(), classes=1)
    with pytest.raises(InputError, match="say which: answers='probabilities' or answers='logits'"):
        load_classifier(net, size=SIZE)
    opened = load_classifier(net, size=SIZE, answers="logits", num_classes=2)
    assert opened.input_spec.num_classes == 2


def test_several_labels_at_once():
    net = Net(nn.Sigmoid())
    with pytest.raises(InputError, match="several labels at once are not supported"):
        load_classifier(net, size=SIZE, answers="multilabel")
    assert "several labels may be right at once" in load_classifier(net, size=SIZE).answers_assumed


@pytest.mark.parametrize("names", [None, ("embedding", "logits"), ("embedding", "scores")])
@pytest.mark.parametrize("kind", ["module", "onnx"])
def test_the_output_with_the_classes_is_chosen_or_asked_for(kind, names, images, tmp_path):
    net = TwoOutputs(names)
    outputs = logits_of(net, images)
    expected = outputs[1] if names is None else outputs[names[1]]
    model, named, size = net, names or ("0", "1"), {"size": SIZE}
    if kind == "onnx":
        named, size = names or ("first", "second"), {}
        model = onnx_file(net, tmp_path / "net.onnx", named)
    if named[1] == "logits":
        opened = load_classifier(model, **size)
        assert "'logits' is taken for the classes'" in opened.answers_assumed
        torch.testing.assert_close(opened.predict(images), expected, atol=1e-5, rtol=1e-4)
    else:
        with pytest.raises(InputError, match=rf"2 outputs .*'{named[0]}' \[3, 12\], '{named[1]}'"):
            load_classifier(model, **size)
    for option in ({"output": named[1]}, {"num_classes": 10}):
        opened = load_classifier(model, **size, **option)
        torch.testing.assert_close(opened.predict(images), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="no output named 'head'; name one of"):
        load_classifier(model, output="head", **size)


def test_an_output_of_maps_is_passed_over(images):
    class Maps(Net):
        def forward(self, x):
            return {"maps": self.conv(x), "answer": self.fc(self.features(x))}

    net = Maps()
    opened = load_classifier(net, size=SIZE)
    torch.testing.assert_close(opened.predict(images), logits_of(net, images)["answer"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "logits"}, "has one output, got output='logits'"),
        ({"answers": "probabilities"}, "said to answer with probabilities, got numbers from -"),
        ({"answers": "odds"}, "answers must be one of logits, probabilities, multilabel"),
        ({"num_classes": 7}, "said to answer with 7 numbers, got 10"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        load_classifier(Net(), size=SIZE, **options)


def test_a_model_of_one_image_at_a_time(images):
    net = Net(nn.Softmax(1))
    opened = load_classifier(lambda x: net(x).reshape(1, 10), size=SIZE)
    torch.testing.assert_close(opened.predict(images[:1]).softmax(1), logits_of(net, images[:1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("normalised", [False, True])
def test_half_precision_runs(dtype, normalised, images):
    net = Net()
    figures = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.25)} if normalised else {}
    mean, std = (
        torch.tensor(figures.get(k, d)).view(-1, 1, 1)
        for k, d in (("mean", (0.0,)), ("std", (1.0,)))
    )
    expected = logits_of(net, (images - mean) / std)
    opened = load_classifier(net.to(dtype), size=SIZE, **figures)
    logits = opened.predict(images)
    assert logits.dtype == torch.float32
    scale = float(expected.abs().max())
    tolerance = {torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]
    assert float((logits - expected).abs().max()) < tolerance * scale


@pytest.mark.parametrize("method", ["si", "pyramid-ensemble", "antialias"])
def test_half_precision_is_converted(method, images):
    net = nn.Sequential(Net().conv, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12 * 64, 10)).half()
    if method == "pyramid-ensemble":
        net = Net().half()
    result = convert(net, method, inputs=InputOptions(size=SIZE), out=None)
    whole = convert(net.float(), method, inputs=InputOptions(size=SIZE), out=None)
    expected = whole.classifier.predict(images)
    error = (result.classifier.predict(images) - expected).abs().max() / expected.abs().max()
    assert float(error) < 1e-2


def test_an_onnx_file_of_channels_last(images, tmp_path, caplog):
    net = Net()

    class Last(nn.Module):
        def forward(self, x):
            return net(x.permute(0, 3, 1, 2))

    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "last.onnx"
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    torch.onnx.export(
        Last().eval(), (torch.rand(2, SIZE, SIZE, 3),), path, dynamo=True, verbose=False,
        dynamic_shapes=dynamic,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        opened = load_classifier(path)
    assert "channels last" in caplog.text
    assert (opened.input_spec.in_chans, opened.input_spec.protocol.canvas) == (3, SIZE)
    torch.testing.assert_close(opened.predict(images), logits_of(net, images), atol=1e-5, rtol=1e-4)
