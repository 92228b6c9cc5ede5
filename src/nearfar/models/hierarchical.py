"""The whole network on a pyramid: one net, shared weights, an answer at every scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from nearfar import pyramid
from nearfar.errors import InputError
from nearfar.grid import level_size
from nearfar.models.cnn_small import SmallCNN
from nearfar.models.registry import register
from nearfar.pyramid import Pyramid, collapse, expand, zoom
from nearfar.scale_sets import ScaleSet, as_scales
from nearfar.symbolic_sizes import has_open_size, map_size

__all__ = ["HierarchicalNet", "Reduction", "Window", "distinct_scales", "hierarchical_cnn_small"]

Reduction = Literal["max", "mean", "logsumexp", "learned"]
Window = int | Literal["image"] | None


class HierarchicalNet(nn.Module):
    """A classifier applied to the image at every scale; the scales' answers are combined.

    .. math:: y = \\mathrm{collapse}_i\\; \\log \\mathrm{softmax}\\, f(T_i(x)) / \\tau

    The answers are compared as log-probabilities. Raw logits are fixed only up to a constant an
    image, so their maximum is also a maximum over chance: a level that sees nothing it knows can
    still hold the largest number. Log-probabilities are all measured from zero.

    Args:
        net: the classifier, ``[B, C, H, W]`` at any H and W → ``[B, K]``.
        scales: at which scales it meets the image.
        reduction: ``logsumexp`` (the sum of the scales' probabilities: a scale that sees nothing it knows
            spreads its share and is outvoted by one that is sure), ``mean`` (the product of their
            probabilities: every scale must agree), ``max`` (the surest scale decides, class by
            class), or ``learned`` (the sum of the scales' probabilities, each times a weight that is
            learnt; equal at first: one more parameter a scale).
        window: a number: every level is the middle of the image seen at its scale through a window of
            so many pixels (:func:`nearfar.pyramid.zoom`): large scales then cost no more than small
            ones, and see the middle only. ``image``: levels up to scale 1 show all of the image, of
            larger ones the middle of the image's size is seen (:func:`nearfar.pyramid.expand` with
            ``crop``), so that small scales cost less than the image. Default: all of the image at every
            scale. Without a number, scales at which an image comes out in the same size are one level
            (:func:`distinct_scales`), which votes once.
        temperature: what logits are divided by before they vote, above 0: at a higher one a level that is
            less sure counts for more, and the answer is less sure.

    Shape:
        ``[B, C, H, W]`` → ``[B, K]``, log-probabilities up to a constant an image.

    Raises:
        InputError: bad scales, ``reduction`` or ``temperature``; on the first image, a net that answers
            with maps.

    Limits:
        The net must take images of any size; one built for a fixed size, such as most vision
        transformers, does not.

    Source: C. Farabet et al. 2013 as discussed in "Convolution over a scale pyramid" §4; the
    "hierarchical CNN" of A. Akbari, Table III.
    """

    def __init__(
        self,
        net: nn.Module,
        scales: ScaleSet = "octave",
        reduction: Reduction = "logsumexp",
        window: Window = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if window not in (None, "image") and not (isinstance(window, int) and window >= 1):
            raise InputError(
                f"window must be a number of pixels, at least 1, 'image' or None, got {window!r}"
            )
        if reduction not in get_args(Reduction):
            raise InputError(
                f"reduction must be one of {', '.join(get_args(Reduction))}, got {reduction!r}"
            )
        if not 0 < temperature < math.inf:
            raise InputError(f"temperature must be a number above 0, got {temperature!r}")
        self.net = net
        self.scales = as_scales(scales)
        self.temperature = temperature
        self.reduction: Reduction = reduction
        self.window: Window = window
        if reduction == "learned":
            self.weights = nn.Parameter(torch.zeros(len(self.scales)))
        self.num_classes = getattr(net, "num_classes", None)

    def get_classifier(self) -> nn.Module:
        return self.net.get_classifier()  # type: ignore[operator,no-any-return]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.net.reset_classifier(num_classes, global_pool)  # type: ignore[operator]
        self.num_classes = num_classes

    def forward_features(self, x: Tensor) -> Pyramid:
        """The net's features at every scale, where it has ``forward_features``."""
        return self._at_scales(self.net.forward_features, x)  # type: ignore[arg-type]

    def forward_head(self, x: Pyramid, pre_logits: bool = False) -> Tensor:
        """The reduction over the scales; ``pre_logits``, or no classifier: the mean of what meets it."""
        flat = pre_logits or self.num_classes == 0
        heads = pyramid.map(
            lambda y: self.net.forward_head(y, pre_logits=flat),  # type: ignore[operator]
            x,
            as_one_batch=isinstance(self.window, int),
        )
        return collapse(heads, "mean") if flat else self._voted(heads)

    def forward(self, x: Tensor) -> Tensor:
        logits = self._at_scales(self.net, x)
        if logits.levels[0].dim() != 2:
            raise InputError(
                f"HierarchicalNet needs a classifier that answers [B, K], got "
                f"{tuple(logits.levels[0].shape)}; for a class for every pixel use nearfar.FCN, for other "
                f"maps pyramid.collapse(pyramid.map(net, pyramid.expand(x, scales)))"
            )
        return collapse(logits, "mean") if self.num_classes == 0 else self._voted(logits)

    def _at_scales(self, f: Callable[[Tensor], Tensor], x: Tensor) -> Pyramid:
        fixed = isinstance(self.window, int)
        return self._levels(f, x, self.scales if fixed else distinct_scales(x, self.scales))

    def _levels(
        self, f: Callable[[Tensor], Tensor], x: Tensor, scales: tuple[float, ...]
    ) -> Pyramid:
        """``f`` of the levels at these scales."""
        if isinstance(self.window, int):
            return pyramid.map(f, zoom(x, scales, self.window), as_one_batch=True)
        return pyramid.map(f, expand(x, scales, crop=self.window == "image"))

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        """What a level says, as it is compared with the others."""
        tempered = logits if self.temperature == 1 else logits / self.temperature
        return tempered.log_softmax(dim=-1)

    def _voted(self, logits: Pyramid) -> Tensor:
        log_p = pyramid.map(self._log_probabilities, logits)
        if self.reduction != "learned":
            return collapse(log_p, self.reduction)
        weights: Tensor = self.weights
        if len(log_p) < len(self.scales):
            weights = weights[[self.scales.index(s) for s in log_p.scales]]
        levels = tuple(y + w for y, w in zip(log_p.levels, weights.log_softmax(dim=0), strict=True))
        return collapse(Pyramid(levels, log_p.scales, log_p.grids, log_p.base), "logsumexp")

    def extra_repr(self) -> str:
        window = "" if self.window is None else f", window={self.window!r}"
        heat = "" if self.temperature == 1 else f", temperature={self.temperature:g}"
        return f"scales={self.scales}, reduction={self.reduction!r}{window}{heat}"


def distinct_scales(x: Tensor, scales: tuple[float, ...]) -> tuple[float, ...]:
    """One scale for each size in which ``x`` comes out; others would count the same level again.

    Of scales with one size, the one that is nearest to the size's own ratio stands for it: 1 of 0.99, 1 and
    1.01 over 28 pixels. While sizes are open (an export), all scales stay.

    Args:
        x: ``[..., H, W]``.
        scales: in any order.
    """
    if has_open_size(x):
        return scales
    rows, columns = map_size(x)
    nearest: dict[tuple[int, int], float] = {}
    for scale in scales:
        size = (level_size(rows, scale), level_size(columns, scale))
        ratio = max(size) / max(rows, columns, 1)
        if size not in nearest or abs(scale - ratio) < abs(nearest[size] - ratio):
            nearest[size] = scale
    return tuple(nearest.values())


@register((3, 28, 28), first_conv="net.stages.0.0", classifier="net.head.fc")
def hierarchical_cnn_small(
    scales: ScaleSet = "octave", reduction: Reduction = "logsumexp", **kwargs: Any
) -> HierarchicalNet:
    """The small CNN over a whole pyramid; the parameters of the plain net exactly."""
    return HierarchicalNet(SmallCNN(**kwargs), scales, reduction)
