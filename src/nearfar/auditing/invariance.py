"""The invariance score: how well what fires a neuron fires it at other sizes too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.progress import Progress, Step, silent

__all__ = ["Neurons", "invariance_scores"]

Neurons = Literal["units", "channels"]


def invariance_scores(
    model: nn.Module,
    images: Tensor,
    shown: Sequence[Callable[[Tensor], Tensor]],
    layers: Sequence[str],
    *,
    neurons: Neurons = "units",
    firing: float = 0.01,
    top: float = 0.2,
    batch_size: int = 250,
    progress: Progress = silent,
) -> dict[str, float]:
    """The invariance score of layers, by hooks: the model is not changed.

    .. math:: S_i = L_i / G_i

    A neuron fires where its value reaches a threshold, set so that it fires for a share of at least
    ``firing`` of the images (:math:`G_i`; ties count in). :math:`L_i` is the share of transformed
    copies that fire it too, of those images that fire it. A neuron that fires by chance scores 1, one
    that fires for 1 % of the images and all their copies 100.

    Args:
        model: any network; set to eval mode for the time.
        images: ``[N, ...]``, what ``shown`` takes.
        shown: transformations, ``[B, ...]`` → the images that the model gets. The first is the
            untransformed one, on which thresholds are set; it is no copy.
        layers: names of modules (``model.named_modules()``) that return a map ``[B, C, H, W]`` or a
            vector ``[B, C]``.
        neurons: ``units``: every channel at every place, as printed; ``channels``: a channel's largest
            value over all places, which does not ask a thing to stay in its place while it grows.
        firing: smallest share of images that a neuron fires for.
        top: share of a layer's neurons, the best ones, whose mean score is the layer's.
        batch_size: images at a time; it does not change the result.
        progress: called after each transformation.

    Returns:
        Score by layer.

    Raises:
        InputError: an unknown layer or word, a share out of range, too few images or transformations.

    Limits:
        Values of all neurons for all images are held at a time: units of large maps need much memory.

    Source: I. Goodfellow et al. 2009, section 3 (their sign of a neuron is left out: with ReLUs a
    neuron fires upwards); A. Akbari, section IV-A.2 and Fig. 5.
    """
    modules = dict(model.named_modules())
    unknown = [name for name in layers if name not in modules]
    if unknown or not layers:
        raise InputError(
            f"layers must name modules of the network, got {list(layers)}; it has "
            f"{', '.join(name for name in list(modules)[1:8])} …"
        )
    if neurons not in get_args(Neurons):
        raise InputError(f"neurons must be one of {get_args(Neurons)}, got {neurons!r}")
    if not (0 < firing < 1 and 0 < top <= 1) or len(images) * firing < 1 or len(shown) < 2:
        raise InputError(
            f"needs shares firing in (0, 1) and top in (0, 1], at least 1 / firing images and two "
            f"transformations, got firing={firing}, top={top}, {len(images)} images and {len(shown)} "
            f"transformations"
        )
    few = max(1, math.ceil(firing * len(images)))
    with _watched(model, {name: modules[name] for name in layers}, neurons) as seen:
        plain = _collect(model, images, shown[0], seen, batch_size)
        thresholds = {name: h.topk(few, dim=0).values[-1] for name, h in plain.items()}
        fired = {name: h >= thresholds[name] for name, h in plain.items()}
        again = {name: torch.zeros(h.shape[1]) for name, h in plain.items()}
        del plain
        for done, change in enumerate(shown[1:], start=1):
            for name, h in _collect(model, images, change, seen, batch_size).items():
                again[name] += ((h >= thresholds[name]) & fired[name]).sum(0)
            progress(Step("invariance", done, len(shown) - 1))
    scores = {}
    for name, mine in fired.items():
        count = mine.sum(0)
        local = again[name] / (count * (len(shown) - 1))
        score = local / (count / len(images))
        best = score.topk(max(1, round(top * len(score)))).values
        scores[name] = float(best.mean())
    return scores


@contextmanager
def _watched(
    model: nn.Module, layers: Mapping[str, nn.Module], neurons: Neurons
) -> Iterator[dict[str, list[Tensor]]]:
    """What layers return, as ``[B, neurons]``, for the time of the block; the model in eval mode."""
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def note(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, given: object, answer: Tensor) -> None:
            if not isinstance(answer, Tensor) or answer.dim() < 2:
                raise InputError(f"layer {name!r} does not return one map; name another")
            whole = neurons == "channels" and answer.dim() > 2
            h = answer.flatten(2).amax(2) if whole else answer.flatten(1)
            seen[name].append(h.detach().float().cpu())

        return hook

    modes = {module: module.training for module in model.modules()}
    handles = [module.register_forward_hook(note(name)) for name, module in layers.items()]
    model.eval()
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training


def _collect(
    model: nn.Module,
    images: Tensor,
    change: Callable[[Tensor], Tensor],
    seen: dict[str, list[Tensor]],
    batch_size: int,
) -> dict[str, Tensor]:
    with torch.inference_mode():
        for part in torch.split(images, batch_size):
            model(change(part))
    found = {name: torch.cat(parts) for name, parts in seen.items()}
    for name, h in found.items():
        if len(h) != len(images):
            raise InputError(
                f"layer {name!r} ran {len(h) / len(images):g} times for an image, as inside a net over a "
                f"pyramid; name a layer that runs once"
            )
    for parts in seen.values():
        parts.clear()
    return found
