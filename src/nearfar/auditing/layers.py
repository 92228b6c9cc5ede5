"""Single layers of any network: how invariant and equivariant they are to scale; which scale won where."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from nearfar.auditing.audited_images import AuditedImages
from nearfar.auditing.audited_models import AuditedModel
from nearfar.auditing.invariance import invariance_scores, recorded_outputs
from nearfar.auditing.result import LayerScores
from nearfar.errors import InputError
from nearfar.functional import si_conv2d
from nearfar.layers import SIConv2d, relative_errors
from nearfar.pyramid import rescale_each

__all__ = [
    "MOST_IMAGES",
    "check_layers",
    "layer_scales",
    "map_errors",
    "score_layers",
    "winner_maps",
]


#: Scores are measured on so many images at most.
MOST_IMAGES = 250
_LEAST_IMAGES = 20
_MOST_LAYERS = 24
_RANGE = (0.5, 2.0)
# Maps of so many images are in memory at a time.
_BATCH = 25
#: Of the maps compared, this share of each side is left out along each edge.
_EDGE = 1 / 8

#: A position this many times weaker than the strongest is background.
_BACKGROUND = 0.02


def check_layers(audited_models: Sequence[AuditedModel], layers: bool | Sequence[str]) -> None:
    """Refuses patterns that no layer's name matches; nothing is run.

    Raises:
        InputError: there is one.
    """
    if isinstance(layers, bool):
        return
    names = [name for e in audited_models if e.classifier.module for name, _ in _modules(e)]
    for pattern in layers:
        if not fnmatch.filter(names, pattern):
            some = ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
            raise InputError(
                f"no layer's name matches {pattern!r}; there are {some or 'none: nothing to look inside of'}"
            )


def layer_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """Those of an audit's scales at which layers are measured: from ½ to 2, without 1."""
    return tuple(s for s in sorted(scales) if _RANGE[0] <= s <= _RANGE[1] and s != 1)


def score_layers(
    model: AuditedModel,
    images: AuditedImages,
    which: Tensor,
    scales: Sequence[float],
    layers: bool | Sequence[str] = True,
    answered: Callable[[int], None] = lambda count: None,
) -> LayerScores | None:
    """Invariance score and equivariance error of a network's layers, by hooks: it is not changed.

    Args:
        model: under audit.
        images: of the audit.
        which: ``[M]`` indices of the images to measure on.
        scales: of the audit; those from ½ to 2 are used.
        layers: ``True``: the convolutions, 24 evenly spread where there are more; or patterns of names, as
            in ``stages.*.conv1``.
        answered: called with the number of images that went through.

    Returns:
        ``None`` of a model without modules. The invariance score is by channels
        (:func:`nearfar.auditing.invariance_scores`), the equivariance error (:func:`map_errors`) the
        median over the images, NaN where a map is too small to compare.

    Limits:
        Layers that do not return one map, or run more than once an image, are left out, with the reason.
    """
    module = model.classifier.module
    if module is None:
        return None
    scales, count = layer_scales(scales), len(which)
    names = _candidates(model, layers)
    obstacle = _obstacle(model, count, scales, names)
    if obstacle:
        return LayerScores((), (), (), (), {"all layers": obstacle}, count)
    inputs_at = _preparation(model, module, images)
    names, left_out = _usable(module, inputs_at(1.0)(which[:2]), names)
    if not names:
        return LayerScores((), (), (), (), left_out, count)
    scores = invariance_scores(
        module,
        which,
        [inputs_at(s) for s in (1.0, *scales)],
        names,
        neurons="channels",
        firing=max(0.01, 1 / count),
        batch_size=_BATCH,
        progress=lambda step: answered(count),
    )
    errors = _errors(model, which, inputs_at, names, scales)
    answered(count * len(scales))
    return LayerScores(
        tuple(names),
        tuple(scores[name] for name in names),
        scales,
        tuple(tuple(errors[name]) for name in names),
        left_out,
        count,
    )


def map_errors(first: Tensor, moved: Tensor, scale: float, covered: float) -> Tensor | None:
    """:func:`relative_errors` of a layer's maps, where the content lies at this scale.

    Maps are taken to cover the whole canvas, so they are rescaled about their middle, as the content is
    about the canvas's.

    Args:
        first: ``[B, C, h, w]``, the layer's maps of images at scale 1.
        moved: likewise at ``scale``.
        scale: of the images.
        covered: the share of the canvas's side that content known at scale 1 covers at ``scale``, at most 1.

    Returns:
        ``[B]``, or ``None`` where fewer than two samples a side are left to compare.

    Limits:
        The samples of a strided layer lie half a stride or less off the middle of what they cover:
        that shift counts as error.
    """
    factors = torch.full((len(first),), scale, dtype=torch.float64, device=first.device)
    expected = rescale_each(first, factors, kernel="bilinear", outside="border")
    for dim in (-2, -1):
        size = first.shape[dim]
        length = 2 * (int(size * covered) // 2) + size % 2  # about the middle
        length = length if length <= size * covered + 1e-9 else length - 2
        if length < 1 or length - 2 * round(length * _EDGE) < 2:
            return None
        begin = (size - length) // 2
        moved, expected = (x.narrow(dim, begin, length) for x in (moved, expected))
    return relative_errors(moved, expected)


def _modules(model: AuditedModel) -> Iterator[tuple[str, nn.Module]]:
    assert model.classifier.module is not None, "checked before"
    return (named for named in model.classifier.module.named_modules() if named[0])


def _candidates(model: AuditedModel, layers: bool | Sequence[str]) -> list[str]:
    """The names of the layers asked for."""
    if isinstance(layers, bool):
        return [name for name, module in _modules(model) if isinstance(module, nn.Conv2d)]
    every = [name for name, _ in _modules(model)]
    matched = {name for pattern in layers for name in fnmatch.filter(every, pattern)}
    return [name for name in every if name in matched]


def _obstacle(
    model: AuditedModel, images: int, scales: Sequence[float], names: Sequence[str]
) -> str | None:
    """Why no layer can be measured, or ``None``."""
    if images < _LEAST_IMAGES or not scales:
        return f"needs {_LEAST_IMAGES} images and a scale from 0.5 to 2 besides 1"
    if not names:
        return "there is no convolution among its modules"
    if model.classifier.batch is not None:
        return f"it takes batches of {model.classifier.batch} images only"
    return None


def _preparation(
    model: AuditedModel, module: nn.Module, images: AuditedImages
) -> Callable[[float], Callable[[Tensor], Tensor]]:
    """Scale → (indices of images → the network's inputs at that scale)."""
    parameter = next(module.parameters(), torch.empty(0))

    def inputs_at(scale: float) -> Callable[[Tensor], Tensor]:
        return lambda indices: model.show(images.read(indices), scale).to(
            parameter.device, parameter.dtype
        )

    return inputs_at


def _usable(
    module: nn.Module, batch: Tensor, names: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Layers that return one map once an image, in the order in which they run; the others, and why."""
    with recorded_outputs(module, names, lambda name, output: output) as outputs:
        module(batch)
    left_out = {}
    for name in names:
        runs = outputs.get(name, [])
        if not runs:
            left_out[name] = "it does not run"
        elif len(runs) > 1:
            left_out[name] = f"it runs {len(runs)} times an image, as inside a net over a pyramid"
        elif not isinstance(runs[0], Tensor) or runs[0].dim() != 4:
            left_out[name] = "it does not return one map"
        elif len(runs[0]) != len(batch):
            times = len(runs[0]) / len(batch)
            left_out[name] = f"it sees an image {times:g} times at once, as over a pyramid"
    usable = [name for name in outputs if name not in left_out]
    if len(usable) > _MOST_LAYERS:
        spread = torch.linspace(0, len(usable) - 1, _MOST_LAYERS).round().long().tolist()
        usable = [usable[i] for i in spread]
    return usable, left_out


def _errors(
    model: AuditedModel,
    which: Tensor,
    inputs_at: Callable[[float], Callable[[Tensor], Tensor]],
    names: Sequence[str],
    scales: Sequence[float],
) -> dict[str, list[float]]:
    """Median equivariance error by layer, at each scale."""
    module, protocol = model.classifier.module, model.protocol
    assert module is not None, "checked before"
    # Content that reaches beyond the canvas at scale 1 is not known there.
    visible = min(1.0, min(protocol.content_size) / max(protocol.canvas_size))
    errors: dict[str, list[list[Tensor]]] = {name: [[] for _ in scales] for name in names}
    with recorded_outputs(module, names, _copy) as outputs:
        for batch in torch.split(which, _BATCH):
            module(inputs_at(1.0)(batch))
            first = {name: outputs[name].pop() for name in names}
            for k, scale in enumerate(scales):
                module(inputs_at(scale)(batch))
                for name in names:
                    moved = outputs[name].pop()
                    batch_errors = map_errors(first[name], moved, scale, min(1.0, visible * scale))
                    if batch_errors is not None:
                        errors[name][k].append(batch_errors.float().cpu())
    return {
        name: [float(torch.cat(parts).nanmedian()) if parts else math.nan for parts in by_scale]
        for name, by_scale in errors.items()
    }


def _copy(name: str, output: object) -> Tensor:
    assert isinstance(output, Tensor), "chosen so"
    return output.clone()  # a later in-place operation may write into the output


def winner_maps(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """For each SI-layer and position, the scale at which the layer's filters responded most strongly.

    Each channel has its winning scale; a position gets the mean (on the logarithmic axis) over the
    channels. A channel's weight is how far its maximum exceeds its mean over the scales, and zero unless
    it fires (is positive): on an empty background all scales tie, and none has won. Positions where
    nothing stands out have no winner.

    Args:
        model: any net with ``SIConv2d`` layers that reduce by ``max``.
        images: ``[B, C, H, W]``.

    Returns:
        By layer name, ``[B, H', W']`` scales; NaN where there is no winner. Empty for a net without
        SI-layers.

    Source: A. Akbari, Fig. 4.
    """
    maps: dict[str, Tensor] = {}

    def hook_for(name: str) -> Callable[[SIConv2d, tuple[Tensor], Tensor], None]:
        def hook(layer: SIConv2d, inputs: tuple[Tensor], output: Tensor) -> None:
            maximum, winner = layer.forward_with_winner(inputs[0])
            logs = torch.tensor(layer.scales, device=maximum.device).log2()
            mean = si_conv2d(
                inputs[0], layer.weight, layer.bias, **{**layer.settings(), "reduce": "mean"}
            )
            weight = torch.where(maximum > 0, (maximum - mean).clamp(min=0), 0.0)
            total = weight.sum(dim=1)
            log_scale = (weight * logs[winner.long()]).sum(dim=1) / total
            background = total <= _BACKGROUND * total.amax(dim=(1, 2), keepdim=True)
            maps[name] = torch.where(background, torch.nan, log_scale.exp2())

        return hook

    hooks = [
        layer.register_forward_hook(hook_for(name))
        for name, layer in model.named_modules()
        if isinstance(layer, SIConv2d) and layer.reduce == "max"
    ]
    try:
        with torch.inference_mode():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
