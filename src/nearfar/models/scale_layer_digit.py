"""One small classifier of digits whose option names the layer: plain, ours, or one of the field's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

from timm.layers import ClassifierHead  # type: ignore[attr-defined]
from torch import Tensor, nn

from nearfar import pyramid
from nearfar.errors import InputError
from nearfar.layers import (
    DilatedScaleConv2d,
    DiscoConv2d,
    GaussianDerivativeConv2d,
    GaussianScaleSpace,
    RieszConv2d,
    ScalePool,
    SiCNNConv2d,
    SIConv2d,
    SteerableConv2d,
)
from nearfar.models.initialisation import reset_he
from nearfar.models.registry import register
from nearfar.models.staged import StagedNet
from nearfar.pyramid import Pyramid
from nearfar.scale_sets import ScaleSet

__all__ = ["ScaleLayer5x5", "ScaleLayerNet", "scale_layer_digit"]

ScaleLayer5x5 = Literal[
    "standard", "si", "steerable", "disco", "dss", "gaussian-derivative", "sicnn", "riesz"
]
_LAYERS: dict[str, Callable[..., nn.Module]] = {
    "standard": nn.Conv2d,
    "si": SIConv2d,
    "steerable": SteerableConv2d,
    "disco": DiscoConv2d,
    "dss": DilatedScaleConv2d,
    "gaussian-derivative": GaussianDerivativeConv2d,
    "sicnn": SiCNNConv2d,
    "riesz": RieszConv2d,
}
#: The layers whose maps have no scales, or that sample none.
_WITHOUT = ("standard", "si", "riesz")


class ScaleLayerNet(StagedNet):
    """Three stages of one 5×5 layer, a batch norm and a ReLU, 2×2 max pooling between; then the maxima.

    The net is the same whatever the layer. Where a layer puts out a pyramid, the next one reads a pyramid,
    and norm, ReLU and pooling are done on every level alike. At the end the levels' maximum is taken, and
    that over all places.

    Args:
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        layer: ``standard`` (``Conv2d``), ``si``, ``steerable``, ``disco``, ``dss`` (dilated over a
            Gaussian scale-space), ``gaussian-derivative``, ``sicnn`` or ``riesz``.
        channels: of the stages.
        filter_scales: of the layers that rescale their filters; default their own.

    Shape:
        ``[B, in_chans, H, W]`` → ``[B, num_classes]``, H and W from 8. With ``standard`` it has 206,954
        parameters.

    Raises:
        InputError: an unknown layer, or ``filter_scales`` for one that has none.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        layer: ScaleLayer5x5 = "steerable",
        channels: Sequence[int] = (32, 64, 96),
        filter_scales: ScaleSet | None = None,
    ) -> None:
        if layer not in get_args(ScaleLayer5x5):
            raise InputError(f"layer must be one of {', '.join(_LAYERS)}, got {layer!r}")
        if filter_scales is not None and layer in _WITHOUT:
            raise InputError(
                f"layer={layer!r} does not rescale filters, got filter_scales={filter_scales}; leave it out"
            )
        scales = {} if filter_scales is None else {"filter_scales": filter_scales}
        geometry = {} if layer == "riesz" else {"kernel_size": 5, "padding": 2}
        make = partial(_LAYERS[layer], bias=False, **geometry, **scales)
        stages = []
        before = in_chans
        for i, width in enumerate(channels):
            stage = nn.Sequential()
            if i > 0:
                stage.append(_OnGrid(nn.MaxPool2d(2)))
            stage.append(make(before, width))
            stage.append(_OnGrid(nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())))
            stages.append(stage)
            before = width
        stem = GaussianScaleSpace(**scales) if layer == "dss" else nn.Identity()  # type: ignore[arg-type]
        final = nn.Identity() if layer in _WITHOUT else ScalePool("max")
        head = ClassifierHead(before, num_classes, pool_type="max")
        super().__init__(stem, stages, head, num_classes, channels, final=final)
        reset_he(self)

    def as_map(self, x: Tensor | Pyramid) -> Tensor:
        """Of a pyramid, the level of the smallest filter."""
        return x.levels[0] if isinstance(x, Pyramid) else x


class _OnGrid(nn.Module):
    """A module on a map, or on the levels of a pyramid on one grid, which it meets as one batch."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor | Pyramid) -> Tensor | Pyramid:
        if isinstance(x, Pyramid):
            return pyramid.map(self.module, x, as_one_batch=True)
        y: Tensor = self.module(x)
        return y


@register((1, 28, 28), first_conv="stages.0.0")
def scale_layer_digit(**kwargs: Any) -> ScaleLayerNet:
    """The net with the layer that the option ``layer`` names."""
    return ScaleLayerNet(**kwargs)
