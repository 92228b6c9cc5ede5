from __future__ import annotations

import pytest
import torch

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
    shown = {b: ScaleProtocol(32, 8, background=b).render(images, 1.0) for b in BACKGROUNDS}
    middle = (..., slice(12, 20), slice(12, 20))
    for found in shown.values():
        torch.testing.assert_close(found[middle], images, atol=1e-5, rtol=0)
    assert float(shown["black"][..., :8, :].abs().max()) == 0
    torch.testing.assert_close(shown["grey"][..., :8, :], torch.full((2, 3, 8, 32), 0.5))
    corner = images[..., :1, :1].expand(-1, -1, 12, 12)
    torch.testing.assert_close(shown["edge"][..., :12, :12], corner, atol=1e-5, rtol=0)
    right = images[..., :, -1:].expand(-1, -1, -1, 12)
    torch.testing.assert_close(shown["edge"][..., 12:20, 20:], right, atol=1e-5, rtol=0)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_level_of_the_background_s_own_is_all_there_is(background):
    level = {"black": 0.0, "grey": 0.5, "edge": 0.3}[background]
    protocol = ScaleProtocol(20, 10, background=background)
    for scale in (0.5, 0.83, 3.0):
        shown = protocol.render(torch.full((1, 1, 7, 7), level), scale)
        torch.testing.assert_close(shown, torch.full_like(shown, level))


def test_records_without_a_background_mean_black():
    recipe = Recipe(ModelSpec("cnn_small"), _data(), FitSpec(), 0, TrainerSpec())
    record = recipe.as_dict()
    assert record["data"]["protocol"].pop("background") == "black"
    assert Recipe.from_dict(record) == recipe


def test_other_words():
    with pytest.raises(
        InputError, match="background must be one of black, grey, edge, got 'white'"
    ):
        ScaleProtocol(background="white")


def _data():
    from nearfar.data import DataSpec

    return DataSpec().explicit()
