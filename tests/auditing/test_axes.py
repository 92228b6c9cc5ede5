"""The axes of an audit: what each changes, and that only that is said."""

from __future__ import annotations

import io
import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
import torch
from auditing.made import by_colour, classifier, coloured, numbered
from PIL import Image
from torch import nn

from nearfar.auditing import AuditSpec, audit
from nearfar.auditing.axes import AuditAxis, AuditPoints, axis_of, list_axes, register_axis
from nearfar.auditing.axes import axis as registry
from nearfar.auditing.axes.stored_side import reduced
from nearfar.auditing.wording import AxisWords
from nearfar.classifiers import Classifier, InputSpec
from nearfar.data import LabelledImages, ScaleProtocol
from nearfar.data.stored_images import DecodedImages
from nearfar.errors import InputError


@pytest.fixture(scope="module")
def schema():
    return json.loads((files("nearfar.auditing") / "schema" / "audit.schema.json").read_text())


def filling(answer, side=48, **spec):
    """A classifier whose content fills its input."""
    return classifier(answer, canvas=side, content=side, **spec)


def only_at(side):
    """Right where its input has this side."""
    return lambda images: (by_colour(images) + (images.shape[-1] != side)) % 3


def test_the_side_of_the_input_changes_and_nothing_else(schema, tmp_path):
    sides = []

    def answer(images):
        sides.append(images.shape[-1])
        # Content covers all of it; the model was tried on a black image.
        assert bool((images.amax(1) == 200 / 255).all() | (images == 0).all())
        return only_at(96)(images)

    outcome = audit(
        {"one": filling(answer), "other": filling(by_colour, side=24)},
        coloured(60),
        AuditSpec(axis="input", sides=(32, 96)),
        require=("one:top1@96>=1", "one:top1@48<=0"),
        out=tmp_path,
    )
    curve = outcome.results["one"].curve
    assert curve.scales == (32.0, 48.0, 96.0)
    assert [curve.accuracy(s) for s in curve.scales] == [0, 0, 1]
    assert (curve.reference, curve.axis.name) == (48.0, "input")
    assert set(sides) == {32, 48, 96}
    assert outcome.passed
    assert "48 px was added to the sides: it is one's own." in outcome.results["one"].notes
    assert (
        outcome.results["other"]
        .notes[1]
        .startswith("other's own input is 24×24: there an image's longer side covers 24 pixels")
    )
    written = json.loads((tmp_path / "audit.json").read_text())
    jsonschema.validate(written, schema)
    assert written["axis"]["unit"] == "px"
    assert written["axis"]["reference"] == 48
    page = (tmp_path / "report.html").read_text()
    for words in ("shown at 3 input sides", "side of the network&#x27;s input", "96 px"):
        assert words.replace("&#x27;", "'") in page.replace("&#x27;", "'"), words


def test_default_sides_go_from_four_sevenths_to_twice():
    outcome = audit(filling(by_colour, side=224), coloured(3, side=8), AuditSpec(axis="input")).only
    assert outcome.curve.scales == (128, 160, 192, 224, 256, 288, 352, 448)
    assert outcome.flips is None


def test_a_side_that_a_net_refuses_is_told_with_the_reason():
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.AvgPool2d(10), nn.Flatten())
    spec = InputSpec("net", 3, ScaleProtocol(16, 16), 3)
    opened = Classifier(spec, net, net)
    with pytest.raises(InputError, match=r"net does not take images of 3×8×8: .*[Oo]utput size"):
        audit(opened, coloured(6), AuditSpec(axis="input", sides=(8, 16)))
    narrow = audit(opened, coloured(6), AuditSpec(axis="input")).only
    assert 16.0 in narrow.curve.scales
    assert min(narrow.curve.scales) >= 12
    assert any(note.startswith("Left out: 10 px") for note in narrow.notes)


def stored(*sizes):
    """Noise of these sizes (height, width), two classes in turn."""
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]
    images = [torch.from_numpy(p).permute(2, 0, 1) for p in pictures]
    labels = torch.arange(len(sizes)) % 2
    return pictures, LabelledImages(DecodedImages(images), labels, ("a", "b"), test_from=0)


@pytest.mark.parametrize("quality", [None, 40])
def test_files_are_reduced_as_pillow_reduces_them(quality):
    pictures, data = stored((40, 30), (30, 80), (64, 64), (20, 100), (3, 17))
    inputs = []

    def answer(images):
        inputs.append(images.clone())
        return torch.zeros(len(images), dtype=torch.int64)

    spec = AuditSpec(axis="stored", sides=(25, 50), quality=quality)
    outcome = audit(filling(answer, side=32, classes=2), data, spec).only
    assert outcome.curve.scales == (25, 50, 100)
    for side, batch in zip((25, 50, 100), inputs, strict=False):
        for picture, image in zip(pictures, batch, strict=True):
            file = Image.fromarray(picture)
            if max(file.size) > side:
                ratio = side / max(file.size)
                size = [max(1, round(n * ratio)) for n in file.size]
                file = file.resize(size, Image.Resampling.LANCZOS)
                if quality is not None:
                    buffer = io.BytesIO()
                    file.save(buffer, "JPEG", quality=quality)
                    file = Image.open(buffer)
            ratio = 32 / max(file.size)
            file = file.resize([max(1, round(n * ratio)) for n in file.size], Image.BICUBIC)
            canvas = Image.new("RGB", (32, 32))
            canvas.paste(file, [(32 - n) // 2 for n in file.size])
            expected = torch.from_numpy(np.array(canvas)).permute(2, 0, 1) / 255
            assert torch.equal(image, expected)
    # Largest sides are 40, 80, 64, 100 and 17 pixels.
    assert any(
        "stay as they are: 1 at 25 px, 2 at 50 px; at 100 px all do." in n for n in outcome.notes
    )


def test_one_size_in_memory_and_grey_images():
    data = numbered(8, 2, side=20)
    grey = LabelledImages(data.images[:, 1:2], data.labels, data.class_names, test_from=0)
    for images in (data, grey):
        outcome = audit(
            filling(lambda x: torch.zeros(len(x), dtype=torch.int64), classes=2),
            images,
            AuditSpec(axis="stored", quality=90),
        ).only
        assert outcome.curve.scales == (8, 12, 16, 20)
        assert outcome.curve.reference == 20
    half = reduced(torch.full((1, 8, 4), 0.5), 4)
    assert half.dtype == torch.uint8
    assert half.tolist() == [[[128] * 2] * 4]


def test_nothing_is_enlarged():
    _, data = stored((30, 20), (10, 12))
    with pytest.raises(
        InputError, match="longer side of 31 pixels: the largest has 30, .* up to 30"
    ):
        audit(filling(by_colour, classes=2), data, AuditSpec(axis="stored", sides=(8, 31)))
    image = torch.zeros(3, 10, 12, dtype=torch.uint8)
    assert reduced(image, 12, quality=5) is image


def test_settings_of_other_axes_are_refused():
    for spec, message in (
        (AuditSpec(axis="size"), "axis must be one of content, input, stored.*, got 'size'"),
        (
            AuditSpec(sides=(8,)),
            r"sides is a setting of the axis input and stored, got sides=\(8,\)",
        ),
        (AuditSpec(axis="input", quality=80), "quality is a setting of the axis stored"),
        (AuditSpec(axis="stored", scales=(1, 2)), "scales is a setting of the axis content"),
        (
            AuditSpec(axis="input", layers=True),
            "flips and layers are looked at where content is zoomed",
        ),
        (
            AuditSpec(axis="input", flips=20),
            "flips and layers are looked at where content is zoomed",
        ),
    ):
        with pytest.raises(InputError, match=message):
            axis_of(spec)
    axis_of(AuditSpec(axis="input", flips=0))
    for settings, message in (
        ({"sides": (0,)}, "sides are whole numbers of pixels, at least 1"),
        ({"sides": (8, 8)}, "sides names a side twice"),
        ({"quality": 96}, "quality is that of a JPEG file, from 1 to 95, got 96"),
    ):
        with pytest.raises(InputError, match=message):
            AuditSpec(axis="stored", **settings)
    with pytest.raises(InputError, match=r"needs one of the sides audited \(24, 48\) after @"):
        audit(
            filling(by_colour),
            coloured(3),
            AuditSpec(axis="input", sides=(24,)),
            require=("top1@25>=0",),
        )


def test_an_axis_is_one_file(monkeypatch):
    """Registered from outside, it has figures, a gate and a report like any other."""
    monkeypatch.setattr(registry, "_AXES", dict(registry._AXES))

    @register_axis("dimmed")
    class Dimmed(AuditAxis):
        """Multiplies brightness."""

        @classmethod
        def of(cls, spec):
            return cls()

        def points(self, audited_models, images):
            words = AxisWords("dimmed", "×", "brightness", "shown at {count} brightness{s}")
            return AuditPoints((0.25, 0.5, 1.0), 1.0, words)

        def prepare(self, images, point):
            return (images * point).byte()

        def notes(self, model, images, points):
            return ("Dimmed before anything else.",)

    assert list_axes()[-1] == "dimmed"
    bright = filling(lambda x: (by_colour(x) + (x.amax((1, 2, 3)) < 0.3)) % 3)
    outcome = audit(bright, coloured(30), AuditSpec(axis="dimmed"), require=("top1@0.5>=1",))
    assert [outcome.only.curve.accuracy(s) for s in (0.25, 0.5, 1.0)] == [0, 1, 1]
    assert outcome.passed
    assert "Dimmed before anything else." in outcome.only.notes
    with pytest.raises(InputError, match="an axis named 'content' is registered already"):
        register_axis("content")(Dimmed)
