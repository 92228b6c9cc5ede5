"""WSMS-Net: one staged network at several scales in parallel, convolution weights shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from timm.layers import ClassifierHead  # type: ignore[attr-defined]
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from nearfar import pyramid
from nearfar.errors import InputError
from nearfar.models.staged import HeadedNet
from nearfar.models.towers import towers_of
from nearfar.pyramid import Pyramid, collapse, expand

__all__ = ["Integration", "WSMSNet"]

Integration = Literal["none", "conv1x1", "conv3x3"]
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class WSMSNet(HeadedNet):
    """Weight-shared multi-stage network over a staged backbone.

    .. math:: y = \\mathrm{head}\\Bigl(\\mathrm{integrate}\\bigl(\\mathrm{concat}_{s}\\;
              B_{t-s+1} ∘ … ∘ B_1 (x_{1/2^{s-1}})\\bigr)\\Bigr)

    Stage s meets the image at scale ``1 / 2^(s-1)`` with the first ``t - s + 1`` of the backbone's
    ``t`` blocks, so that all stages end on maps of one size; these are concatenated and integrated.
    The weights of the convolutions are *the same tensors* in every stage; normalisation layers are
    each stage's own.

    Args:
        backbone: any staged network: one of ours, one of timm's with ``forward_intermediates``
            (ResNet, RegNet, ConvNeXt, EfficientNet …), or a module with ``stem``, ``stages``,
            ``stage_channels`` and ``pool``. It becomes stage 1 and is not copied; one of timm's
            loses its classifier.
        stages: number of stages S, from 1 to the number of the backbone's blocks.
        num_classes: classes; 0 leaves the classifier out.
        integration: ``none``, or a ``conv1x1`` / ``conv3x3`` convolution with batch norm and ReLU.
        channels: channels that leave the integration convolution (c in the paper).
        share_weights: ``False`` gives every stage weights of its own: the paper's MS-Net.

    Shape:
        ``[B, C, H, W]`` → ``[B, num_classes]``.

    Raises:
        InputError: the backbone is not staged, or ``stages`` or ``integration`` do not fit.

    Limits:
        The stages are concatenated, not pooled: the classifier still has to learn each of them. A
        thing at half the size excites stage 1 as it excited stage 2 before, in other channels; so
        training at one scale teaches little about others. The paper halves the image "by a pooling
        layer"; here :func:`nearfar.pyramid.expand` does, antialiased.

    Source: R. Takahashi, T. Matsubara, K. Uehara, "Scale-Invariant Recognition by Weight-Shared
    CNNs in Parallel", §3, Fig. 2–3.
    """

    def __init__(
        self,
        backbone: nn.Module,
        stages: int = 3,
        num_classes: int = 10,
        integration: Integration = "conv1x1",
        channels: int = 128,
        *,
        share_weights: bool = True,
    ) -> None:
        super().__init__()
        if integration not in get_args(Integration) or channels < 1:
            raise InputError(
                f"integration must be one of {', '.join(get_args(Integration))} with channels >= 1, "
                f"got {integration!r} with {channels}"
            )
        towers = towers_of(backbone, stages)
        self.towers = nn.ModuleList(towers.modules)
        self.scales = tuple(0.5**s for s in range(stages))
        self.stage_channels = tuple(towers.channels)
        self.num_classes = num_classes
        self.share_weights = share_weights
        if share_weights:
            self._tie()
            self.register_load_state_dict_post_hook(_tie_again)  # type: ignore[no-untyped-call]
        else:
            for tower in self.towers[1:]:
                _draw_again(tower)
        width = sum(towers.channels)
        if integration == "none":
            self.integration: nn.Module = nn.Identity()
        else:
            kernel = 1 if integration == "conv1x1" else 3
            conv = nn.Conv2d(width, channels, kernel, padding=kernel // 2, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            self.integration = nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())
            width = channels
        self.num_features = width
        # The last maps are the integrated ones; the finer ones are stage 1's.
        last = {**towers.feature_info[-1], "num_chs": width, "module": "integration"}
        self.feature_info = [*towers.feature_info[:-1], last]
        self.head = ClassifierHead(width, num_classes, pool_type=getattr(backbone, "pool", "avg"))

    def _tie(self) -> None:
        """Makes every tensor of the later towers the first tower's, but those of norms."""
        for tower in self.towers[1:]:
            for key, part in tower.named_modules():
                if not isinstance(part, _NORMS) and (part._parameters or part._buffers):
                    first = self.towers[0].get_submodule(key)
                    part._parameters.update(first._parameters)
                    part._buffers.update(first._buffers)

    def _apply(self, fn: Any, recurse: bool = True) -> WSMSNet:
        # Moving to or from the meta device makes new tensors, each tower its own.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.share_weights:
            self._tie()
        return self

    def forward_features(self, x: Tensor) -> Tensor:
        towers = iter(self.towers)
        return self._integrated(lambda level: next(towers)(level), x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Stage 1's maps, the integrated ones in the last's place; timm's interface.

        The arguments are those of :meth:`nearfar.models.staged.StagedNet.forward_intermediates`;
        there is no ``norm`` to apply, and nothing to gain by stopping early.
        """
        if output_fmt != "NCHW":
            raise InputError(f"maps come as 'NCHW' here, got output_fmt={output_fmt!r}")
        chosen, _ = feature_take_indices(len(self.feature_info), indices)
        maps: list[Tensor] = []
        towers = iter(self.towers)

        def run(level: Tensor) -> Tensor:
            tower = next(towers)
            if maps:
                features: Tensor = tower(level)
            else:
                features, intermediates = tower.intermediates(level)  # type: ignore[operator]
                maps.extend(intermediates)
            return features

        features = self._integrated(run, x)
        maps[-1] = features
        chosen_maps = [m for i, m in enumerate(maps) if i in chosen]
        return chosen_maps if intermediates_only else (features, chosen_maps)

    def _integrated(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        outputs = pyramid.map(run, expand(x, self.scales))
        # Every tower ends on the first one's grid, except where odd sizes rounded differently.
        first = Pyramid(outputs.levels, outputs.scales, outputs.grids, outputs.grids[0])
        integrated: Tensor = self.integration(collapse(first, "concat"))
        return integrated


def _tie_again(net: WSMSNet, _: Any) -> None:
    """After loading with ``assign=True``; a function of the module, so that nets can be pickled."""
    net._tie()


def _draw_again(module: nn.Module) -> None:
    """Fresh random weights, of the kind each convolution had (MSR)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
