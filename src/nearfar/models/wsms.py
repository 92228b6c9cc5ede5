"""WSMS-Net: one staged network at several scales in parallel, convolution weights shared."""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

from timm.layers import ClassifierHead  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from nearfar import pyramid
from nearfar.errors import InputError
from nearfar.models.cnn_small import SmallCNN
from nearfar.models.registry import register
from nearfar.models.staged import StagedBackbone
from nearfar.pyramid import Pyramid, collapse, expand

__all__ = ["Integration", "WSMSNet", "wsms_cnn_small"]

Integration = Literal["none", "conv1x1", "conv3x3"]
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class WSMSNet(nn.Module):
    """Weight-shared multi-stage network over a staged backbone.

    .. math:: y = \\mathrm{head}\\Bigl(\\mathrm{integrate}\\bigl(\\mathrm{concat}_{s}\\;
              B_{t-s+1} ∘ … ∘ B_1 (x_{1/2^{s-1}})\\bigr)\\Bigr)

    Stage s meets the image at scale ``1 / 2^(s-1)`` with the first ``t - s + 1`` of the backbone's
    ``t`` blocks, so that all stages end on maps of one size; these are concatenated and integrated.
    The weights of the convolutions are *the same tensors* in every stage; normalisation layers are
    each stage's own.

    Args:
        backbone: a staged network (:class:`nearfar.models.staged.StagedBackbone`); it becomes
            stage 1 and is not copied.
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
        training at one scale teaches little about others.

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
        if not isinstance(backbone, StagedBackbone):
            raise InputError(
                f"WSMSNet needs a staged backbone with stem, stages, stage_channels and pool, got "
                f"{type(backbone).__name__}; wrap it in a class that names its stages"
            )
        blocks = len(backbone.stages)
        if not 1 <= stages <= blocks:
            raise InputError(
                f"stages must be from 1 to the backbone's {blocks} blocks, got {stages}"
            )
        if integration not in get_args(Integration) or channels < 1:
            raise InputError(
                f"integration must be one of {', '.join(get_args(Integration))} with channels >= 1, "
                f"got {integration!r} with {channels}"
            )
        self.num_classes = num_classes
        self.scales = tuple(0.5**s for s in range(stages))
        self.towers = nn.ModuleList()
        trunk = [backbone.stem, *backbone.stages]
        for s in range(stages):
            part = nn.Sequential(*trunk[: blocks - s + 1])
            if s > 0:
                part = copy.deepcopy(part)
            self.towers.append(part)
        self.share_weights = share_weights
        if share_weights:
            self._tie()
            self.register_load_state_dict_post_hook(_tie_again)  # type: ignore[no-untyped-call]
        else:
            for tower in self.towers[1:]:
                _draw_again(tower)
        width = sum(backbone.stage_channels[blocks - s - 1] for s in range(stages))
        if integration == "none":
            self.integration: nn.Module = nn.Identity()
        else:
            kernel = 1 if integration == "conv1x1" else 3
            conv = nn.Conv2d(width, channels, kernel, padding=kernel // 2, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            self.integration = nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())
            width = channels
        self.num_features = width
        self.head = ClassifierHead(width, num_classes, pool_type=backbone.pool)

    def _tie(self) -> None:
        """Makes every tensor of the later towers the first tower's, but those of norms."""
        for tower in self.towers[1:]:
            for key, part in tower.named_modules():
                if not isinstance(part, _NORMS):
                    first = self.towers[0].get_submodule(key)
                    part._parameters.update(first._parameters)
                    part._buffers.update(first._buffers)

    def _apply(self, fn: Any, recurse: bool = True) -> WSMSNet:
        # Moving to or from the meta device makes new tensors, each tower its own.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.share_weights:
            self._tie()
        return self

    def get_classifier(self) -> nn.Module:
        classifier: nn.Module = self.head.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        seen = expand(x, self.scales)
        towers = iter(self.towers)
        answers = pyramid.map(lambda level: next(towers)(level), seen)
        # Every tower ends on the first one's grid, except where odd sizes rounded differently.
        first = Pyramid(answers.levels, answers.scales, answers.grids, answers.grids[0])
        integrated: Tensor = self.integration(collapse(first, "concat"))
        return integrated

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        logits: Tensor = self.head(x, pre_logits=pre_logits)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _tie_again(net: WSMSNet, _: Any) -> None:
    """After loading with ``assign=True``; a function of the module, so that nets can be pickled."""
    net._tie()


def _draw_again(module: nn.Module) -> None:
    """Fresh random weights, of the kind each convolution had (MSR)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")


@register
def wsms_cnn_small(
    stages: int = 2,
    integration: Integration = "none",
    num_classes: int = 10,
    **kwargs: Any,
) -> WSMSNet:
    """The small CNN at scales 1 and 1/2 in parallel."""
    backbone = SmallCNN(num_classes=0, **kwargs)
    return WSMSNet(backbone, stages, num_classes, integration)
