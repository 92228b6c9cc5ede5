"""``fixres``: head and last norm alone are tuned to the size at which the network is used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nearfar.conversion.method import Change, ConversionMethod, Plan, register_method
from nearfar.conversion.trial import published_side, size_fault
from nearfar.errors import InputError
from nearfar.grid import level_size
from nearfar.pyramid import expand

__all__ = ["FixRes", "TunedHead"]

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


@register_method("fixres")
@dataclass(frozen=True)
class FixRes(ConversionMethod):
    """The network at another size of its images, with all but its last norm and its classifier frozen.

    A network that is fed larger images than it was trained on meets things at the size that it knows, but its
    last maps have other statistics. Tuning what reads them, on images at that size, costs least of all
    methods. The size is that of the canvas (``size``); ``scale`` enlarges the canvas within the network,
    where the network says its size itself. What is frozen stays as it was, to the bit, the statistics of its
    batch norms included.

    Args:
        scale: how many times as large as the canvas the network is shown it.

    Raises:
        InputError: a scale that is not positive and finite.

    Source: H. Touvron et al. 2019, "Fixing the train-test resolution discrepancy", §4.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise InputError(f"scale must be a number above 0, got {self.scale!r}")

    @property
    def moves_logits(self) -> bool:
        """Where the images are enlarged."""
        return self.scale != 1

    @property
    def random_scale(self) -> tuple[float, float] | None:
        """None: it is tuned to one size."""
        return None

    def plan(self, network: nn.Module, side: int | None = None) -> Plan:
        """The whole network, frozen but for two layers.

        Raises:
            InputError: a network without a dense layer or convolution that answers, one that is frozen
                already, or that does not take images of that size.
        """
        if isinstance(network, TunedHead):
            raise InputError("the network was tuned by fixres before; convert the one inside (net)")
        names = tuned_layers(network)
        if not names:
            raise InputError(
                f"{type(network).__name__} has no classifier among its layers that could be tuned"
            )
        side = side or published_side(network)
        size = level_size(side, self.scale) if side else 0
        if side and size != side and (fault := size_fault(network, side, size)):
            raise InputError(
                f"{type(network).__name__} takes images of {side}×{side}, but not of {size}×{size} "
                f"({fault}); build it for that size"
            )
        after = f"the same, of which {' and '.join(names)} alone are trained"
        if self.scale != 1:
            after += f", shown images {self.scale:g} times as large"
        make = partial(TunedHead, scale=self.scale)
        note = "Nothing has been tuned yet unless it is fine-tuned (finetune), on images at its own size."
        return Plan(self, (Change("", type(network).__name__, after, make),), notes=(note,))


class TunedHead(nn.Module):
    """A network of which the last norm and the classifier alone learn.

    In training mode everything else stays in evaluation mode: dropout does not drop, and batch norms keep
    their statistics.

    Args:
        net: the network; its other parameters no longer require gradients.
        scale: how many times as large as they are it is shown images, all of them.

    Shape:
        ``[B, C, H, W]`` → ``[B, K]``.
    """

    def __init__(self, net: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.net, self.scale = net, scale
        self.num_classes = getattr(net, "num_classes", None)
        self._tuned = tuned_layers(net)
        tuned = {id(p) for name in self._tuned for p in net.get_submodule(name).parameters()}
        for parameter in net.parameters():
            parameter.requires_grad_(id(parameter) in tuned)
        mode, self.training = net.training, True
        self.train(mode)

    def train(self, mode: bool = True) -> TunedHead:
        """Training mode for the tuned layers alone."""
        super().train(mode)
        if mode:
            self.net.eval()
            for name in self._tuned:
                self.net.get_submodule(name).train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The network's answer to the image at its scale."""
        larger = x if self.scale == 1 else expand(x, (self.scale,)).levels[0]
        logits: Tensor = self.net(larger)
        return logits

    def extra_repr(self) -> str:
        """What learns, and the scale."""
        return f"tuned={self._tuned}, scale={self.scale:g}"


def tuned_layers(network: nn.Module) -> tuple[str, ...]:
    """Names of the last norm and of the classifier, in that order; empty where there is no classifier."""
    names = {id(module): name for name, module in network.named_modules()}
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    classifier = network.get_classifier() if hasattr(network, "get_classifier") else None  # type: ignore[operator]
    if not isinstance(classifier, nn.Linear | nn.Conv2d):
        classifier = layers[-1] if layers else None
    if classifier is None or id(classifier) not in names:
        return ()
    norms = [names[id(m)] for m in network.modules() if isinstance(m, _NORMS)]
    return (*norms[-1:], names[id(classifier)])
