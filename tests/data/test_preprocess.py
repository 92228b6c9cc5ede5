"""From decoded pixels to a canvas: compared with PIL, torchvision and timm alone; and what it depends on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import noise
from PIL import Image
from recording import Recorder, as_set, by_pil, files_of
from timm.data import create_transform
from timm.data.transforms import CenterCropOrPad, ResizeKeepRatio
from torchvision.transforms import Compose, PILToTensor
from torchvision.transforms import functional as F

import nearfar
from nearfar.auditing import AuditSpec, ImageSelection
from nearfar.data import (
    DataSpec,
    Preprocess,
    ScaleDataModule,
    ScaleProtocol,
    preprocess,
    stored_images,
)
from nearfar.data.canvas import FILTERS
from nearfar.errors import InputError

SIDES = {"shorter": "center", "both": "squash", "longer": "border"}
FILL = (128, 102, 76)


def image_of(height, width, seed=0, darkest=0, lightest=255):
    draw = np.random.default_rng(seed)
    pixels = draw.integers(darkest, lightest + 1, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def tensor_of(image):
    return PILToTensor()(image)[None]


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 40),
    st.sampled_from((1.0, 0.95, 0.9, 0.875, 0.8)),
    st.sampled_from(sorted(SIDES)),
    st.sampled_from(("nearest", "bilinear", "bicubic", "lanczos", "hamming", "box")),
)
def test_scale_1_is_timm_s_evaluation_transform(height, width, canvas, share, side, interpolation):
    transform = create_transform(
        (3, canvas, canvas),
        interpolation=interpolation,
        crop_pct=share,
        crop_mode=SIDES[side],
        mean=(0.5, 0.4, 0.3),
        normalize=False,
    )
    image = image_of(height, width)
    content = int(canvas / share)
    found = Preprocess(canvas, content, side, interpolation, FILL).render(tensor_of(image), 1)
    assert torch.equal(found[0], transform(image).float() / 255)


@given(st.integers(8, 60), st.integers(8, 60), st.integers(8, 30), st.integers(8, 30))
def test_rectangles_are_timm_s_too(height, width, canvas_height, canvas_width):
    image, canvas = image_of(height, width), (canvas_height, canvas_width)
    content = (canvas_height + 3, canvas_width + 2)
    resizes = {
        "longer": ResizeKeepRatio(content, longest=1.0, interpolation="bicubic"),
        "shorter": ResizeKeepRatio(content, interpolation="bicubic"),
        "both": lambda image: image.resize(content[::-1], Image.Resampling.BICUBIC),
    }
    for side, resize in resizes.items():
        ours = Preprocess(canvas, content, side)
        if side == "shorter" and content[0] == content[1]:
            continue  # torchvision's rounding, tested above
        transform = Compose([resize, CenterCropOrPad(canvas, fill=0), PILToTensor()])
        assert torch.equal(ours.render(tensor_of(image), 1)[0], transform(image).float() / 255), (
            side
        )


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("interpolation", FILTERS)
def test_grey_is_pillow_s(side, interpolation):
    image = image_of(50, 75)
    ours = Preprocess(32, 36, side, interpolation)
    filter_code = Image.Resampling[interpolation.upper()]
    height, width = ours.resized_size(50, 75)
    grey = image.convert("L").resize((width, height), filter_code)
    expected = F.pil_to_tensor(CenterCropOrPad(32, fill=0)(grey)).float() / 255
    assert torch.equal(ours.render(tensor_of(image), 1, channels=1)[0], expected)
    assert torch.equal(ours.render(tensor_of(image.convert("L")), 1)[0], expected)
    three = ours.render(tensor_of(image.convert("L")), 1, channels=3)
    assert torch.equal(three[0], expected.expand(3, -1, -1))


@pytest.mark.parametrize("interpolation", sorted(set(FILTERS) - {"nearest"}))
@pytest.mark.parametrize("size", [(96, 64), (48, 96), (24, 12), (150, 150)])
@pytest.mark.parametrize("scale", [0.5, 1.25, 2.0, 3.0])
def test_other_scales_are_one_resampling_of_the_source(interpolation, size, scale):
    """Where a scale makes whole pixels Pillow can make it too; between its two passes it rounds to bytes."""
    image = image_of(*size, darkest=80, lightest=175)  # no filter leaves the bytes: nothing is cut
    ours = Preprocess(64, 32, "shorter", interpolation)
    ends = []
    for whole in ours.resized_size(*size):
        start = 32 + scale * ((64 - whole) // 2 - 32)
        if start % 1 or scale * whole % 1:
            pytest.skip("not whole pixels")
        ends.append((int(start), int(scale * whole)))
    (top, height), (left, width) = ends
    resized = image.resize((width, height), Image.Resampling[interpolation.upper()])
    expected = Image.new("RGB", (64, 64))
    expected.paste(resized, (left, top))
    difference = (255 * ours.render(tensor_of(image), scale) - tensor_of(expected)).abs()
    # Half a level for each rounding, the first of them times the largest sum of the filter's weights.
    rounding = {"bicubic": 1.2, "lanczos": 1.4}.get(interpolation, 1.01)
    assert float(difference.max()) <= rounding


@given(st.floats(0.2, 6), st.integers(1, 70), st.integers(1, 70), st.sampled_from(sorted(FILTERS)))
def test_a_white_image_stays_white_up_to_its_edge(scale, height, width, interpolation):
    ours = Preprocess(24, 24, "both", interpolation, "black")
    white = torch.full((1, 3, height, width), 255, dtype=torch.uint8)
    canvas = ours.render(white, scale)
    side = 24 * scale
    if side >= 24:
        torch.testing.assert_close(canvas, torch.ones_like(canvas), rtol=0, atol=1e-6)
    else:  # what the canvas holds of it is its area
        assert float(canvas[0, 0].sum()) == pytest.approx(side**2, rel=1e-4)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("background", ["black", "grey", "edge", FILL])
def test_a_margin_is_more_canvas_and_changes_nothing_within(side, background):
    ours = Preprocess(32, 28, side, background=background)
    images = tensor_of(image_of(50, 33))
    for scale in (0.6, 1.0, 1.7):
        framed = ours.render(images, scale, margin=5)
        assert framed.shape == (1, 3, 42, 42)
        torch.testing.assert_close(
            framed[..., 5:-5, 5:-5], ours.render(images, scale), rtol=0, atol=1e-6
        )
    framed = ours.render(images, 1.0, margin=5)
    assert torch.equal(framed[..., 5:-5, 5:-5], ours.render(images, 1.0))


def test_each_image_at_a_scale_of_its_own():
    ours = Preprocess(32, 28, "shorter", "bilinear")
    images = [tensor_of(image_of(40 + 7 * (i % 3), 50, i))[0] for i in range(9)]
    scales = torch.tensor([1.0, 0.37, 2.0, 1.0, 1.1, 0.5, 0.9, 1.0, 1.3], dtype=torch.float64)
    canvases = ours.render_each(images, scales)
    for image, scale, canvas in zip(images, scales.tolist(), canvases, strict=True):
        expected = ours.render([image], scale)[0]
        if scale == 1:
            assert torch.equal(canvas, expected)
        torch.testing.assert_close(canvas, expected, rtol=0, atol=1e-6)


def test_images_too_long_to_resize_whole_differ_by_rounding_alone(monkeypatch):
    """Pillow would need gigabytes for all of a strip of which the canvas sees its middle."""
    image = image_of(4, 900, darkest=80, lightest=175)
    ours = Preprocess(24, 24, "shorter")
    whole = ours.render(tensor_of(image), 1.0)
    monkeypatch.setattr(preprocess, "_RESIZED_LIMIT", 1000)
    part = ours.render(tensor_of(image), 1.0)
    assert 0 < float((whole - part).abs().max()) < 1.2 / 255


def test_images_of_floating_point_are_pillow_s_within_rounding():
    pixels = np.random.default_rng(0).random((8, 8), dtype=np.float32)
    ours = Preprocess(20, 12)
    resized = np.array(Image.fromarray(pixels).resize((12, 12), Image.Resampling.BICUBIC))
    expected = torch.from_numpy(np.pad(resized.clip(0, 1), 4))
    canvas = ours.render(torch.from_numpy(pixels)[None, None], 1.0)
    torch.testing.assert_close(canvas[0, 0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interpolation": "cubic"}, "interpolation must be one of nearest, box"),
        ({"side": "wider"}, "side must be one of longer, shorter, both"),
        ({"background": "white"}, "background must be one of black, grey, edge"),
        ({"background": (1, 2, 300)}, "a background colour is red, green and blue"),
        ({"canvas": (4, 0)}, "canvas must be a whole number from 1 to 16384 pixels"),
        ({"content": 2.5}, "content must be a whole number"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Preprocess(**settings)


# What the pixels depend on

PROTOCOL = ScaleProtocol(32, 36, "shorter", "bilinear")
SCALES = (0.4, 0.5, 0.71, 1.0, 1.1, 1.5, 2.0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for i in range(12):
        size = ((20, 30), (20, 30), (64, 32), (32, 32), (141, 150))[i % 5]
        noise(root / ("cat", "dog")[i % 2] / f"{i}.{('png', 'jpg', 'webp')[i % 3]}", i, size)
    return root


@pytest.fixture(scope="module")
def pixels(photos):
    """By scale: every image alone."""
    images = [by_pil(path, tensor_of)[0] for path in files_of(photos)]
    return {s: [PROTOCOL.render([image], s)[0] for image in images] for s in SCALES}


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """Folders of caches: none, one that is empty each time, one that is full after its first use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_images, "CACHED_FROM", 0)
        yield lambda: {
            "none": "off",
            "empty": str(tmp_path_factory.mktemp("cache")),
            "full": str(tmp_path_factory.getbasetemp() / "full_cache"),
        }


cache_words = st.sampled_from(("none", "empty", "full"))
sources = st.sampled_from(("folder", "stream_folder"))


@given(
    st.lists(st.sampled_from(SCALES), min_size=1, max_size=4, unique=True),
    st.integers(1, 13),
    st.integers(2, 12),
    cache_words,
    sources,
)
def test_an_audit_s_pixels_depend_on_image_and_scale_alone(
    photos, pixels, caches, scales, batch_size, count, cache, source
):
    recorder = Recorder(PROTOCOL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARFAR_CACHE", caches()[cache])
        curve = nearfar.audit(
            recorder.classifier,
            source,
            AuditSpec(scales=tuple(scales), batch_size=batch_size, flips=0),
            selection=ImageSelection(root=photos, count=count),
        ).only.curve
    inputs = as_set(recorder.inputs)
    assert set(curve.scales) == {*scales, 1.0}
    assert len(inputs) == count * len(curve.scales)
    for k, scale in enumerate(curve.scales):
        alone = as_set(pixels[scale])
        assert len(inputs & alone) == count
        logits = recorder.logits(torch.stack(pixels[scale]))
        if count == 12:
            assert curve.predictions[k].tolist() == logits.argmax(1).tolist()
            confidence = logits.softmax(1).amax(1)
            torch.testing.assert_close(curve.confidence[k], confidence, rtol=0, atol=1e-6)


@given(st.integers(1, 13), st.integers(1, 12))
def test_predictions_depend_on_the_image_alone(photos, pixels, batch_size, count):
    recorder = Recorder(PROTOCOL)
    paths = files_of(photos)[:count]
    list(nearfar.predict(recorder.classifier, paths, batch_size=batch_size))
    assert torch.equal(torch.stack(recorder.inputs), torch.stack(pixels[1.0][:count]))


@given(
    st.lists(st.sampled_from(SCALES), min_size=1, max_size=3, unique=True),
    st.integers(1, 9),
    cache_words,
    sources,
)
def test_training_pixels_depend_on_image_and_scale_alone(
    photos, pixels, caches, scales, batch_size, cache, source
):
    protocol = ScaleProtocol(32, 36, "shorter", "bilinear", train_scales=tuple(scales))
    spec = DataSpec(source, photos, protocol, train=6, validation=2, test=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARFAR_CACHE", caches()[cache])
        data = ScaleDataModule(spec, batch_size)
    which = data.indices["train"]
    order = data.train_dataloader().sampler.order(0)
    drawn = protocol.draw(len(which), data.seed).tolist()
    images = torch.cat([images for images, _ in data.train_dataloader()])
    expected = torch.stack([pixels[drawn[i]][int(which[i])] for i in order])
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
    at_one = torch.tensor([drawn[i] == 1 for i in order])
    assert torch.equal(images[at_one], expected[at_one])
