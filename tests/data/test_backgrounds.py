from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar.data import ScaleProtocol
from nearfar.errors import InputError
from nearfar.training import Recipe
from nearfar.training.specs import FitSpec, ModelSpec, TrainerSpec

BACKGROUNDS = ("black", "grey", "edge")


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("scale", [0.4, 0.7, 1.0, 2.3])
def test_each_at_its_own_scale_is_all_at_one(background, scale):
    protocol = ScaleProtocol(21, 13, background=background)
    images = torch.rand(3, 2, 9, 12)
    one = protocol.render(images, scale)
    each = protocol.render_each(images, torch.full((3,), scale, dtype=torch.float64))
    torch.testing.assert_close(one, each, atol=1e-5, rtol=0)


def test_grey_is_half_and_edges_are_repeated():
    images = torch.rand(2, 3, 8, 8)
    canvases = {b: ScaleProtocol(32, 8, background=b).render(images, 1.0) for b in BACKGROUNDS}
    middle = (..., slice(12, 20), slice(12, 20))
    for canvas in canvases.values():
        torch.testing.assert_close(canvas[middle], images, atol=1e-5, rtol=0)
    assert float(canvases["black"][..., :8, :].abs().max()) == 0
    torch.testing.assert_close(canvases["grey"][..., :8, :], torch.full((2, 3, 8, 32), 0.5))
    corner = images[..., :1, :1].expand(-1, -1, 12, 12)
    torch.testing.assert_close(canvases["edge"][..., :12, :12], corner, atol=1e-5, rtol=0)
    right = images[..., :, -1:].expand(-1, -1, -1, 12)
    torch.testing.assert_close(canvases["edge"][..., 12:20, 20:], right, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_a_colour_lies_around_the_image(scale):
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    colour = torch.tensor([250, 120, 3], dtype=torch.uint8)
    protocol = ScaleProtocol(32, 16, background=tuple(colour.tolist()))
    around = protocol.render(images, scale)[..., :, :8]
    torch.testing.assert_close(
        around, (colour / 255).view(3, 1, 1).expand(2, 3, 32, 8), atol=1e-6, rtol=0
    )
    # Before grey images it is as light as Pillow makes it.
    luma = np.array(Image.new("RGB", (1, 1), tuple(colour.tolist())).convert("L"))[0, 0] / 255
    around = protocol.render(images, scale, channels=1)[..., :, :8]
    torch.testing.assert_close(around, torch.full((2, 1, 32, 8), float(luma)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_level_of_the_background_s_own_is_all_there_is(background):
    level = {"black": 0.0, "grey": 0.5, "edge": 0.3}[background]
    protocol = ScaleProtocol(20, 10, background=background)
    for scale in (0.5, 0.83, 3.0):
        canvas = protocol.render(torch.full((1, 1, 7, 7), level), scale)
        torch.testing.assert_close(canvas, torch.full_like(canvas, level))


def test_records_without_a_background_mean_black():
    recipe = Recipe(ModelSpec("cnn_small"), _data(), FitSpec(), 0, TrainerSpec())
    record = recipe.as_dict()
    assert record["data"]["protocol"].pop("background") == "black"
    assert Recipe.from_dict(record) == recipe


def test_other_words():
    with pytest.raises(
        InputError, match="background must be one of black, grey, edge, or a colour.*, got 'white'"
    ):
        ScaleProtocol(background="white")
    for colour in ((1, 2, 256), (1, 2), (1, 2, 0.5)):
        with pytest.raises(InputError, match="colour is red, green and blue from 0 to 255, got"):
            ScaleProtocol(background=colour)


def _data():
    from nearfar.data import DataSpec

    return DataSpec().explicit()
