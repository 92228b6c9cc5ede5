from __future__ import annotations

import pytest
import torch

from nearfar.data import SCENARIOS, DataSpec, ScaleDataModule, ScaleProtocol, scenario
from nearfar.data.protocols import TEST_SCALES, unseen
from nearfar.errors import InputError


def test_a_band_gives_every_image_a_scale_of_its_own():
    protocol = ScaleProtocol(28, 24, train_band=(0.3, 1.0))
    scales = protocol.draw(5000, seed=3)
    assert torch.equal(scales, protocol.draw(5000, seed=3))
    assert not torch.equal(scales, protocol.draw(5000, seed=4))
    assert 0.3 <= float(scales.min()) < 0.302
    assert 0.998 < float(scales.max()) < 1.0
    # Uniform: a quarter of the images in each quarter of the band.
    assert torch.allclose(
        torch.histc(scales.float(), 4, 0.3, 1.0) / 5000, torch.tensor(0.25), atol=0.02
    )


def test_training_images_are_rendered_at_their_drawn_scales():
    protocol = ScaleProtocol(28, 24, train_band=(0.3, 1.0))
    data = ScaleDataModule(
        DataSpec("digits", protocol=protocol, train=40, validation=20, test=20), 8, seed=5
    )
    rendered = torch.cat(list(data.in_order("train")))
    scales = protocol.draw(40, seed=5)
    for i in (0, 7, 39):
        alone = data.images("train", float(scales[i]))[i]
        torch.testing.assert_close(rendered[i], alone, atol=1e-5, rtol=0)
    for images, labels in data.train_dataloader():
        assert images.shape[1:] == (1, 28, 28)
        assert len(labels) == len(images)


def test_discrete_scales_are_drawn_as_they_always_were():
    """Committed figures depend on it."""
    protocol = ScaleProtocol(train_scales=(0.5, 1.0, 2.0))
    draw = torch.Generator().manual_seed(9)
    expected = torch.tensor([0.5, 1.0, 2.0]).double()[torch.randint(3, (50,), generator=draw)]
    assert torch.equal(protocol.draw(50, seed=9), expected)


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_train_on_a_part_and_test_everywhere(name):
    protocol = scenario(name, canvas=28, content=20)
    assert protocol.test_scales == TEST_SCALES
    outside = unseen(protocol)
    drawn = protocol.draw(1000, 0)
    for scale in TEST_SCALES:
        inside = float(drawn.min()) - 0.01 <= scale <= float(drawn.max()) + 0.01
        assert inside == (scale not in outside)
    assert 3 <= len(outside) < 7


def test_bad_bands():
    with pytest.raises(
        InputError, match=r"train_band is a smallest and a largest scale.*\[1.0, 0.3\]"
    ):
        ScaleProtocol(train_band=(1.0, 0.3))
    with pytest.raises(InputError, match="in place of train_scales"):
        ScaleProtocol(train_band=(0.3, 1.0), train_scales=(0.5,))
    with pytest.raises(
        InputError, match="no scenario is named 'all'; there are middle, small, large, one"
    ):
        scenario("all", 28, 28)
