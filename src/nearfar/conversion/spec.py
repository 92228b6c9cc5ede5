"""Conversion: what is to become of a trained network, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from nearfar.errors import InputError
from nearfar.models import Integration, Vote
from nearfar.scale_sets import as_scales

__all__ = ["Conversion", "Method"]

Method = Literal["si", "pyramid-ensemble", "wsms", "antialias"]

#: Which settings each method knows, with their defaults.
_SETTINGS: dict[str, dict[str, Any]] = {
    "si": {"layers": ("*",), "scales": (0.75, 1.0, 1.33)},
    "pyramid-ensemble": {"scales": (0.6, 1.0, 1.68), "vote": "logsumexp", "window": "image"},
    "wsms": {"stages": 3, "integration": "none"},
    "antialias": {"layers": ("*",)},
}


@dataclass(frozen=True)
class Conversion:
    """How a network is converted.

    Args:
        method: ``si``: convolutions become SI-layers, with the same weights. ``pyramid-ensemble``: the
            whole network answers at every scale and the answers are combined. ``wsms``: a staged
            backbone runs at several scales in parallel, convolution weights shared. ``antialias``: what
            halves a map (convolutions and maximum pools with a stride) blurs it first.
        layers: with ``si`` and ``antialias``: which layers, by patterns of their names
            (``layer3.*``); one that begins with ``!`` leaves out. Default: all that it makes sense for.
        scales: with ``si`` (default 0.75, 1, 1.33) and ``pyramid-ensemble`` (default 0.6, 1,
            1.68).
        vote: with ``pyramid-ensemble``: ``logsumexp`` (default), ``mean``, ``max``, or ``learned``: a
            weighted mean of the scales' probabilities, the weights learnt (one parameter a scale).
        window: with ``pyramid-ensemble``: ``image`` (default): no level is larger than the image; of
            those above scale 1 the middle is seen. ``all``: every level shows all of the image; a level
            at scale 2 costs four times the network. ``fixed``: every level has the image's size, for
            networks that take no other.
        stages: with ``wsms``: how many scales, each half the one before; default 3.
        integration: with ``wsms``: ``none`` (default: the network answers as before until it is trained
            on), ``conv1x1`` or ``conv3x3``, which are new and need training.

    Raises:
        InputError: an unknown word, or a setting that the method does not know.
    """

    method: Method
    layers: tuple[str, ...] | None = None
    scales: tuple[float, ...] | None = None
    vote: Vote | None = None
    window: Literal["image", "all", "fixed"] | None = None
    stages: int | None = None
    integration: Integration | None = None

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise InputError(
                f"method must be one of {', '.join(get_args(Method))}, got {self.method!r}"
            )
        known = _SETTINGS[self.method]
        for name in ("layers", "scales", "vote", "window", "stages", "integration"):
            value = getattr(self, name)
            if value is not None and name not in known:
                others = ", ".join(m for m, settings in _SETTINGS.items() if name in settings)
                raise InputError(
                    f"method {self.method!r} has no {name}, got {name}={value!r}; it belongs to {others}"
                )
            if value is None and name in known:
                object.__setattr__(self, name, known[name])
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers))
        if self.scales is not None:
            object.__setattr__(self, "scales", as_scales(self.scales))
        for name, words in (
            ("vote", get_args(Vote)),
            ("window", ("image", "all", "fixed")),
            ("integration", get_args(Integration)),
        ):
            if getattr(self, name) not in (None, *words):
                raise InputError(
                    f"{name} must be one of {', '.join(words)}, got {getattr(self, name)!r}"
                )
        if self.stages is not None and self.stages < 2:
            raise InputError(f"stages must be at least 2, got {self.stages}")

    @property
    def chosen_layers(self) -> bool:
        """Whether layers were named, rather than all meant that it makes sense for."""
        return any(p != "*" and not p.startswith("!") for p in self.layers or ())
