"""The invariance score: how well what fires a neuron fires it at other sizes too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.models.modes import evaluating
from nearfar.progress import Progress, Step, silent

__all__ = ["Neurons", "invariance_scores", "recorded_outputs"]

Neurons = Literal["units", "channels"]
_Value = TypeVar("_Value")


def invariance_scores(
    model: nn.Module,
    images: Tensor,
    transforms: Sequence[Callable[[Tensor], Tensor]],
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
    ``firing`` of the images (:math:`G_i`; ties count). :math:`L_i` is the share of transformed copies that
    fire it too, of those images that fire it. A neuron that fires by chance scores 1, one that fires for
    1 % of the images and all their copies 100.

    Args:
        model: any network; in eval mode meanwhile.
        images: ``[N, ...]``, the inputs of ``transforms``.
        transforms: ``[B, ...]`` → the model's inputs. The first is the untransformed one, on which the
            thresholds are set; it is no copy.
        layers: names of modules (``model.named_modules()``) that return a map ``[B, C, H, W]`` or a
            vector ``[B, C]``.
        neurons: ``units``: every channel at every position, as printed; ``channels``: a channel's largest
            value over all positions, so that a thing may move while it grows.
        firing: smallest share of images that a neuron fires for.
        top: share of a layer's neurons, the best ones, whose mean score is the layer's.
        batch_size: images at a time; it does not change the result.
        progress: called after each transformation.

    Returns:
        Score by layer.

    Raises:
        InputError: an unknown layer or word, a share out of range, too few images or transformations.

    Limits:
        Values of all neurons for all images are in memory at a time: units of large maps need much.
        Units before an in-place activation are read after it.

    Source: I. Goodfellow et al. 2009, section 3 (without their sign of a neuron: with ReLUs a neuron fires
    upwards); A. Akbari, section IV-A.2 and Fig. 5.
    """
    _check(model, images, transforms, layers, neurons, firing, top)
    few = max(1, math.ceil(firing * len(images)))
    with recorded_outputs(model, layers, _neuron_values(neurons)) as outputs:
        values = _values(model, images, transforms[0], layers, outputs, batch_size)
        thresholds = {name: v.topk(few, dim=0).values[-1] for name, v in values.items()}
        fired = {name: v >= thresholds[name] for name, v in values.items()}
        fired_again = {name: torch.zeros(v.shape[1]) for name, v in values.items()}
        del values  # the largest tensors here
        for done, transform in enumerate(transforms[1:], start=1):
            values = _values(model, images, transform, layers, outputs, batch_size)
            for name, v in values.items():
                fired_again[name] += ((v >= thresholds[name]) & fired[name]).sum(0)
            progress(Step("invariance", done, len(transforms) - 1))
    scores = {}
    for name, images_fired in fired.items():
        count = images_fired.sum(0)
        local_rate = fired_again[name] / (count * (len(transforms) - 1))
        score = local_rate / (count / len(images))
        best = score.topk(max(1, round(top * len(score)))).values
        scores[name] = float(best.mean())
    return scores


@contextmanager
def recorded_outputs(
    model: nn.Module, names: Sequence[str], value: Callable[[str, object], _Value]
) -> Iterator[dict[str, list[_Value]]]:
    """What modules return while the block runs; the model in eval mode.

    Args:
        model: any network.
        names: of its modules.
        value: module's name and output → what to record of it.

    Returns:
        By name, in the order in which the modules first run, a value for each run.
    """
    outputs: dict[str, list[_Value]] = {}

    def hook_for(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            outputs.setdefault(name, []).append(value(name, output))

        return hook

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(hook_for(name)) for name in names]
    try:
        with evaluating(model), torch.inference_mode():
            yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _check(
    model: nn.Module,
    images: Tensor,
    transforms: Sequence[object],
    layers: Sequence[str],
    neurons: str,
    firing: float,
    top: float,
) -> None:
    modules = dict(model.named_modules())
    if not layers or any(name not in modules for name in layers):
        raise InputError(
            f"layers must name modules of the network, got {list(layers)}; it has "
            f"{', '.join(name for name in list(modules)[1:8])} …"
        )
    if neurons not in get_args(Neurons):
        raise InputError(f"neurons must be one of {get_args(Neurons)}, got {neurons!r}")
    shares = 0 < firing < 1 and 0 < top <= 1
    if not shares or len(images) * firing < 1 or len(transforms) < 2:
        raise InputError(
            f"needs shares firing in (0, 1) and top in (0, 1], at least 1 / firing images and two "
            f"transformations, got firing={firing}, top={top}, {len(images)} images and {len(transforms)} "
            f"transformations"
        )


def _neuron_values(neurons: Neurons) -> Callable[[str, object], Tensor]:
    """A layer's output → ``[B, neurons]``."""

    def values(name: str, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.dim() < 2:
            raise InputError(f"layer {name!r} does not return one map; name another")
        whole = neurons == "channels" and output.dim() > 2
        flat = output.flatten(2).amax(2) if whole else output.flatten(1)
        return flat.detach().float().cpu()

    return values


def _values(
    model: nn.Module,
    images: Tensor,
    transform: Callable[[Tensor], Tensor],
    layers: Sequence[str],
    outputs: Mapping[str, list[Tensor]],
    batch_size: int,
) -> dict[str, Tensor]:
    """The values ``[N, neurons]`` of all images by layer; ``outputs`` is emptied."""
    for batch in torch.split(images, batch_size):
        model(transform(batch))
    values = {}
    for name in layers:
        batches = outputs.get(name)
        if not batches:
            raise InputError(f"layer {name!r} does not run; name another")
        values[name] = torch.cat(batches)
        batches.clear()
        if len(values[name]) != len(images):
            raise InputError(
                f"layer {name!r} ran {len(values[name]) / len(images):g} times for an image, as inside a "
                f"net over a pyramid; name a layer that runs once"
            )
    return values
