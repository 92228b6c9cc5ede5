"""Every layer keeps the contract that it states, within the error that it states."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from nearfar import layers
from nearfar.errors import InputError
from nearfar.layers import ScaleLayer
from nearfar.pyramid import expand
from nearfar.resampling import resize

OCTAVE = (0.5, 2.0)
THIRDS = (0.5, 0.63, 0.7937, 1.26, 1.5874, 2.0)
#: A layer, scales, and an error that it stays below; each is about a fifth above what was measured.
LAYERS = {
    "si": (lambda: layers.SIConv2d(2, 8, 5, padding=2), THIRDS, 0.48),
    "pyramid": (lambda: layers.PyramidConv2d(2, 8, 5, padding=2), OCTAVE, 0.12),
    "scale": (lambda: layers.ScaleConv2d(2, 8, 5, padding=2), OCTAVE, 0.23),
    "pool": (layers.ScalePool, THIRDS, 0.28),
    "pool, concat": (lambda: layers.ScalePool("concat"), OCTAVE, 0.13),
    "steerable": (lambda: layers.SteerableConv2d(2, 8, 5, padding=2), THIRDS, 0.17),
    "steerable, stride": (lambda: layers.SteerableConv2d(2, 8, 5, 2, 2), THIRDS, 0.55),
    "steerable, 2 scales": (
        lambda: layers.SteerableConv2d(2, 8, 5, padding=2, scale_extent=2),
        THIRDS[1:-1],
        0.27,
    ),
    "disco": (lambda: layers.DiscoConv2d(2, 8, 5, padding=2), THIRDS, 0.14),
    "disco, octave": (lambda: layers.DiscoConv2d(2, 8, 5, padding=2), OCTAVE, 1e-4),
    "dilated": (lambda: layers.DilatedScaleConv2d(2, 8, 5, padding=2), OCTAVE, 1e-4),
    "scale-space": (layers.GaussianScaleSpace, OCTAVE, 0.12),
    "derivative": (lambda: layers.GaussianDerivativeConv2d(2, 8, 9, padding=4), THIRDS, 0.05),
    "columns": (
        lambda: layers.SiCNNConv2d(2, 8, 7, padding=3, filter_scales=(1, 2)),
        OCTAVE,
        0.35,
    ),
    "riesz": (lambda: layers.RieszConv2d(2, 8), THIRDS, 0.16),
}


@pytest.mark.parametrize("name", LAYERS)
def test_contracts_are_kept(name):
    make, scales, most = LAYERS[name]
    torch.manual_seed(0)
    result = make().check_equivariance(scales)
    assert result.contract
    assert result.scales == scales
    assert all(n > 0 for n in result.levels)
    assert None not in result.errors
    assert 0 <= result.worst < most


def test_every_layer_states_a_contract():
    kinds = [c for c in vars(layers).values() if inspect.isclass(c) and issubclass(c, ScaleLayer)]
    assert len(kinds) >= 12
    assert [c.__name__ for c in kinds if c is not ScaleLayer and not c.contract] == []


def test_a_broken_layer_is_told_from_a_whole_one():
    torch.manual_seed(0)

    class Broken(layers.DiscoConv2d):
        """Its larger filters look aside."""

        def kernel(self, level):
            return super().kernel(level).roll(int(level > 0), -1)

    whole, broken = (
        c(1, 4, 3, padding=1, filter_scales=(1, 2)) for c in (layers.DiscoConv2d, Broken)
    )
    broken.load_state_dict(whole.state_dict())
    assert whole.check_equivariance(OCTAVE).worst < 1e-4
    assert broken.check_equivariance(OCTAVE).worst > 0.3


def test_the_error_is_the_stated_one():
    """By hand, for a lifting layer at half size."""
    torch.manual_seed(0)
    layer = layers.SteerableConv2d(1, 3, 3, padding=1, filter_scales=(1, 2))
    x = torch.randn(2, 1, 32, 32)
    moved = layer(expand(x, (0.5,)).levels[0]).levels[0][..., 2:14, 2:14]
    expected = resize(layer(x).levels[1], (16, 16), True)[..., 2:14, 2:14]
    errors = (moved - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    errors = errors.detach()
    result = layer.check_equivariance((0.5,), x)
    assert result.errors[0] == pytest.approx(float(errors.median()), rel=1e-5)
    assert result.levels == (1,)


def test_where_nothing_is_promised_nothing_is_measured():
    result = layers.DilatedScaleConv2d(1, 1, 3).check_equivariance((0.7,))
    assert result.errors == (None,)
    assert result.worst is None


def test_refusals():
    class Silent(ScaleLayer, nn.Identity):
        """States nothing."""

    with pytest.raises(InputError, match="Silent states no contract over scales"):
        Silent().check_equivariance()
    with pytest.raises(
        InputError, match=r"needs floating-point images \[B, C, H, W\], got \(8, 8\)"
    ):
        layers.RieszConv2d(1, 1).check_equivariance(images=torch.zeros(8, 8))
    with pytest.raises(InputError, match="every scale must be positive"):
        layers.RieszConv2d(1, 1).check_equivariance((0,))
