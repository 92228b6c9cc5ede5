"""Ready-made protocols: MNIST-Scale, and four ways to train on some scales and be tested on all."""

from __future__ import annotations

import dataclasses
from typing import Any

from nearfar.data.protocol import ScaleProtocol
from nearfar.data.spec import DataSpec
from nearfar.errors import InputError

__all__ = ["SCENARIOS", "TEST_SCALES", "mnist_scale", "scenario", "unseen"]

#: What each trains on: a band of scales, or one. The bands have one width in octaves, 0.58.
SCENARIOS: dict[str, tuple[float, ...]] = {
    "middle": (0.448, 0.669),
    "small": (0.3, 0.448),
    "large": (0.669, 1.0),
    "one": (0.548,),
}
#: Where all of them are tested: seven scales, evenly spaced in octaves.
TEST_SCALES = (0.3, 0.367, 0.448, 0.548, 0.669, 0.818, 1.0)


def scenario(name: str, canvas: int, content: int) -> ScaleProtocol:
    """Trains on a band of scales or on one, tests from 0.3 to 1.

    Args:
        name: ``middle``, ``small``, ``large`` (a band of scales each) or ``one``.
        canvas, content: in pixels, as :class:`nearfar.data.ScaleProtocol` has them.

    Raises:
        InputError: another name.
    """
    if name not in SCENARIOS:
        raise InputError(f"no scenario is named {name!r}; there are {', '.join(SCENARIOS)}")
    trained = SCENARIOS[name]
    if len(trained) == 1:
        return ScaleProtocol(canvas, content, train_scales=trained, test_scales=TEST_SCALES)
    low, high = trained
    return ScaleProtocol(canvas, content, test_scales=TEST_SCALES, train_band=(low, high))


def unseen(protocol: ScaleProtocol) -> tuple[float, ...]:
    """The test scales that training does not show: outside the band, or not among the scales."""
    band = protocol.train_band
    if band is None:
        return tuple(s for s in protocol.test_scales if s not in protocol.train_scales)
    return tuple(s for s in protocol.test_scales if not band[0] <= s <= band[1])


def mnist_scale(fold: int, **more: Any) -> DataSpec:
    """A fold of MNIST-Scale as published: 10,000 training, 2,000 validation, 50,000 test images.

    Digits already have their sizes, so each is shown as it is.

    Args:
        fold: 0 to 5 are those of the tables.
        more: other fields of the spec, such as ``root`` or an augmentation.

    Source: see :func:`nearfar.data.sources.mnist_scale.mnist_scale_source`.
    """
    protocol = ScaleProtocol(canvas=28, content=28, test_scales=(1.0,))
    spec = DataSpec("mnist_scale", split="official", split_seed=fold, protocol=protocol)
    return dataclasses.replace(spec, **more)
