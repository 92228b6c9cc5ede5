"""``pyramid-ensemble``: the whole network at every scale."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from torch import nn

from nearfar.conversion.method import Change, ConversionMethod, Plan, register_method
from nearfar.conversion.trial import published_side, size_fault
from nearfar.errors import InputError
from nearfar.grid import level_size
from nearfar.models import CascadeNet, HierarchicalNet, Reduction
from nearfar.scale_sets import as_scales

__all__ = ["PyramidEnsemble", "Window", "takes_one_size"]

Window = Literal["image", "all", "fixed"]


def takes_one_size(network: nn.Module) -> bool:
    """Whether a network of timm's says that it takes images of one size only."""
    cfg: Any = getattr(network, "pretrained_cfg", None) or {}
    return bool((cfg if isinstance(cfg, dict) else cfg.to_dict()).get("fixed_input_size"))


@register_method("pyramid-ensemble")
@dataclass(frozen=True)
class PyramidEnsemble(ConversionMethod):
    """The whole network answers at several scales of the image, and the answers are combined.

    Args:
        scales: at which scales it meets the image.
        reduction: ``logsumexp`` (the mean of the scales' probabilities), ``mean``, ``max``, or ``learned``: a
            weighted mean of the scales' probabilities, the weights learnt (one parameter a scale).
        window: ``image``: no level is larger than the image; of those above scale 1 the middle is used.
            ``all``: every level shows all of the image; a level at scale 2 costs four times the network.
            ``fixed``: every level has the image's size, for networks that take no other.
        temperature: what logits are divided by before they vote, above 0.
        threshold: makes it a cascade, which looks at one scale after the other in the order given, and stops
            where the best class has this probability: from 0 to 1. Default: it looks at all scales.

    Raises:
        InputError: an unknown word, scales that are not positive and finite, a number out of range, or a
            threshold with a learnt reduction.
    """

    scales: tuple[float, ...] = (0.6, 1.0, 1.68)
    reduction: Reduction = "logsumexp"
    window: Window = "image"
    temperature: float = 1.0
    threshold: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", as_scales(self.scales))
        for name, words in (("reduction", get_args(Reduction)), ("window", get_args(Window))):
            if getattr(self, name) not in words:
                raise InputError(
                    f"{name} must be one of {', '.join(words)}, got {getattr(self, name)!r}"
                )
        self.over(nn.Identity(), 1)  # the network's own checks of these numbers

    @property
    def trains_original(self) -> bool:
        """Unless the reduction is learnt, which needs all levels at once.

        What the levels show the network are other sizes, which is what augmentation shows it too, for the
        cost of one level.
        """
        return self.reduction != "learned"

    @classmethod
    def usable_as(cls, network: nn.Module, side: int | None) -> str:
        """As the base class says; networks of one size only with ``window='fixed'``."""
        side = side or published_side(network)
        if name := super().usable_as(network, side):
            return name
        try:
            cls(window="fixed").plan(network, side or 1)
        except InputError:
            return ""
        return f"{cls.name} with window='fixed'"

    def plan(self, network: nn.Module, side: int | None = None) -> Plan:
        """The network over a pyramid of the image.

        Raises:
            InputError: ``window='fixed'`` without ``side``, a network of one size only with another window,
                or a network over a pyramid already.
        """
        if isinstance(network, HierarchicalNet):
            raise InputError(
                f"the network is over a pyramid of scales {network.scales} already; convert the one inside "
                f"(net)"
            )
        if self.window == "fixed" and side is None:
            raise InputError("window='fixed' needs to know the size of the images; give size")
        if self.window != "fixed":
            self._check_sizes(network, side or published_side(network))
        levels = {
            "image": "no level larger than the image",
            "all": "all of the image at each",
            "fixed": f"each through a window of {side} pixels",
        }[self.window]
        scales = ", ".join(f"{s:g}" for s in self.scales)
        after = f"the same at scales {scales} ({levels}), combined by {self.reduction}"
        if self.temperature != 1:
            after += f" at temperature {self.temperature:g}"
        if self.threshold is not None:
            after += f", one after the other until it is {100 * self.threshold:g} % sure"
        make = partial(_over_a_pyramid, conversion=self, side=side)
        return Plan(self, (Change("", type(network).__name__, after, make),))

    def _check_sizes(self, network: nn.Module, side: int | None) -> None:
        """Refuses a network that does not take images of the levels' sizes."""
        fixed = "give window='fixed', with which it meets every scale through a window of that size"
        if takes_one_size(network):
            raise InputError(f"{type(network).__name__} takes images of one size only; {fixed}")
        if side is None:
            return
        largest = None if self.window == "all" else side
        sizes = {level_size(side, s) for s in self.scales}
        for size in sorted({min(n, largest or n) for n in sizes} - {side, 0}):
            if fault := size_fault(network, side, size):
                raise InputError(
                    f"{type(network).__name__} takes images of {side}×{side}, but not of {size}×{size}, "
                    f"which a level has ({fault}); {fixed}, or other scales"
                )

    def over(self, network: nn.Module, side: int | None) -> HierarchicalNet:
        """The voting network over another, or the cascade."""
        window: Any = {"image": "image", "all": None, "fixed": side}[self.window]
        settings = (self.scales, self.reduction, window, self.temperature)
        if self.threshold is None:
            return HierarchicalNet(network, *settings)
        return CascadeNet(network, *settings, self.threshold)


def _over_a_pyramid(old: nn.Module, conversion: PyramidEnsemble, side: int | None) -> nn.Module:
    whole = conversion.over(old, side)
    first = next((p for p in old.parameters() if p.is_floating_point()), None)
    if first is not None:
        whole.to(device=first.device, dtype=first.dtype)  # the learnt reduction, if there is one
    whole.training = old.training
    return whole
