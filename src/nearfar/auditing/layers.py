"""Single layers of any network: how invariant and how equivariant they are to scale."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nearfar.auditing.entrants import Entrant
from nearfar.auditing.equivariance import map_errors
from nearfar.auditing.images import AuditedImages
from nearfar.auditing.invariance import invariance_scores
from nearfar.auditing.result import LayerScores
from nearfar.errors import InputError
from nearfar.recognisers.recogniser import evaluating

__all__ = ["MOST_IMAGES", "check_layers", "layer_scales", "score_layers"]

#: Scores are measured on so many images at most.
MOST_IMAGES = 250
_LEAST_IMAGES = 20
_MOST_LAYERS = 24
_RANGE = (0.5, 2.0)
# Maps of so many images are held at a time.
_AT_ONCE = 25


def check_layers(entrants: Sequence[Entrant], layers: bool | Sequence[str]) -> None:
    """Refuses patterns that no layer's name matches; nothing is run.

    Raises:
        InputError: there is one.
    """
    if isinstance(layers, bool):
        return
    names = [name for e in entrants if e.recogniser.module for name, _ in _modules(e)]
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
    entrant: Entrant,
    images: AuditedImages,
    which: Tensor,
    scales: Sequence[float],
    layers: bool | Sequence[str] = True,
    answered: Callable[[int], None] = lambda count: None,
) -> LayerScores | None:
    """Invariance score and equivariance error of a network's layers, by hooks: it is not changed.

    Args:
        entrant: whose layers.
        images: of the audit.
        which: ``[M]``, on which of them.
        scales: of the audit; those from ½ to 2 are used.
        layers: ``True``: the convolutions, 24 evenly spread where there are more; or patterns of names, as
            in ``stages.*.conv1``.
        answered: called with how many images were answered.

    Returns:
        ``None`` where nobody can look inside. The invariance score is by channels
        (:func:`nearfar.auditing.invariance_scores`), the equivariance error
        (:mod:`nearfar.auditing.equivariance`) the median over the images, NaN where a map
        is too small to compare.

    Limits:
        Layers that do not return one map, or run more than once an image, are left out, with the reason.
    """
    module = entrant.recogniser.module
    if module is None:
        return None
    scales = layer_scales(scales)
    if len(which) < _LEAST_IMAGES or not scales:
        why = f"needs {_LEAST_IMAGES} images and a scale from 0.5 to 2 besides 1"
        return LayerScores((), (), (), (), {"all layers": why}, len(which))
    wanted = _wanted(entrant, layers)
    if not wanted or entrant.recogniser.batch is not None:
        why = "there is no convolution among its modules"
        if wanted:
            why = f"it takes batches of {entrant.recogniser.batch} images only"
        return LayerScores((), (), (), (), {"all layers": why}, len(which))
    place = next(module.parameters(), torch.empty(0))

    def shown(scale: float) -> Callable[[Tensor], Tensor]:
        return lambda at: entrant.show(images.read(at), scale).to(place.device, place.dtype)

    with evaluating(module), torch.inference_mode():
        names, left_out = _usable(module, shown(1.0)(which[:2]), wanted)
    if not names:
        return LayerScores((), (), (), (), left_out, len(which))
    count = len(which)
    scores = invariance_scores(
        module,
        which,
        [shown(s) for s in (1.0, *scales)],
        names,
        neurons="channels",
        firing=max(0.01, 1 / count),
        batch_size=_AT_ONCE,
        progress=lambda step: answered(count),
    )
    errors = _errors(entrant, module, which, shown, names, scales)
    answered(count * len(scales))
    return LayerScores(
        tuple(names),
        tuple(scores[name] for name in names),
        scales,
        tuple(tuple(errors[name]) for name in names),
        left_out,
        count,
    )


def _modules(entrant: Entrant) -> Iterator[tuple[str, nn.Module]]:
    assert entrant.recogniser.module is not None, "asked for before"
    return (found for found in entrant.recogniser.module.named_modules() if found[0])


def _wanted(entrant: Entrant, layers: bool | Sequence[str]) -> list[str]:
    if isinstance(layers, bool):
        return [name for name, module in _modules(entrant) if isinstance(module, nn.Conv2d)]
    every = [name for name, _ in _modules(entrant)]
    matched = {name for pattern in layers for name in fnmatch.filter(every, pattern)}
    return [name for name in every if name in matched]


def _usable(
    module: nn.Module, batch: Tensor, wanted: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Layers that return one map once an image, in the order in which they run; the others, and why."""
    modules = dict(module.named_modules())
    maps: dict[str, list[object]] = {name: [] for name in wanted}
    order: list[str] = []

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(layer: nn.Module, given: object, answer: object) -> None:
            maps[name].append(answer)
            if name not in order:
                order.append(name)

        return hook

    handles = [modules[name].register_forward_hook(note(name)) for name in wanted]
    try:
        module(batch)
    finally:
        for handle in handles:
            handle.remove()
    left_out = {}
    for name in wanted:
        found = maps[name]
        if not found:
            left_out[name] = "it does not run"
        elif len(found) > 1:
            left_out[name] = f"it runs {len(found)} times an image, as inside a net over a pyramid"
        elif not isinstance(found[0], Tensor) or found[0].dim() != 4:
            left_out[name] = "it does not return one map"
        elif len(found[0]) != len(batch):
            times = len(found[0]) / len(batch)
            left_out[name] = f"it sees an image {times:g} times at once, as over a pyramid"
    usable = [name for name in order if name not in left_out]
    if len(usable) > _MOST_LAYERS:
        at = torch.linspace(0, len(usable) - 1, _MOST_LAYERS).round().long().tolist()
        usable = [usable[i] for i in at]
    return usable, left_out


def _errors(
    entrant: Entrant,
    module: nn.Module,
    which: Tensor,
    shown: Callable[[float], Callable[[Tensor], Tensor]],
    names: Sequence[str],
    scales: Sequence[float],
) -> dict[str, list[float]]:
    """Median equivariance error by layer, at each scale."""
    protocol = entrant.protocol
    # What juts out of the canvas at scale 1 is not known there.
    known = min(1.0, min(protocol.content_size) / max(protocol.canvas_size))
    found: dict[str, list[list[Tensor]]] = {name: [[] for _ in scales] for name in names}
    with evaluating(module), torch.inference_mode(), _maps(module, names) as maps:
        for part in torch.split(which, _AT_ONCE):
            module(shown(1.0)(part))
            first = dict(maps)
            for k, scale in enumerate(scales):
                module(shown(scale)(part))
                for name in names:
                    errors = map_errors(first[name], maps[name], scale, min(1.0, known * scale))
                    if errors is not None:
                        found[name][k].append(errors.float().cpu())
    return {
        name: [float(torch.cat(parts).nanmedian()) if parts else math.nan for parts in by_scale]
        for name, by_scale in found.items()
    }


@contextmanager
def _maps(module: nn.Module, names: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """The latest map of each layer."""
    modules = dict(module.named_modules())
    maps: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(layer: nn.Module, given: object, answer: Tensor) -> None:
            maps[name] = answer.clone()  # what follows may write into it

        return hook

    handles = [modules[name].register_forward_hook(note(name)) for name in names]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()
