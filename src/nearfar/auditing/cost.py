"""What a net costs: parameters, multiplications, time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nearfar.counting import count_on
from nearfar.errors import InputError

__all__ = ["Cost", "cost_of", "time_batches"]


@dataclass(frozen=True)
class Cost:
    """The cost of a net that does not depend on the machine.

    Attributes:
        parameters: numbers to learn, shared ones counted once.
        multiplications: multiplications of convolutions and dense layers for one image. Resizing
            and pooling are not counted; operators count as they are defined, also where a faster
            path multiplies less.
    """

    parameters: int
    multiplications: int


def cost_of(model: nn.Module, image: Tensor) -> Cost:
    """Counts a net's parameters, and its multiplications for one image ``[C, H, W]``.

    Raises:
        InputError: the net does not take the image.

    :func:`nearfar.count` says the same layer by layer, and more.
    """
    found = count_on(model, image)
    return Cost(found.parameters, found.multiplications)


def time_batches(
    models: Mapping[str, Callable[[Tensor], Tensor]],
    batch: Tensor | Mapping[str, Tensor],
    rounds: int = 7,
    learning: bool = False,
) -> dict[str, float]:
    """Seconds that each net takes for a batch: the median of several rounds, taken in turns.

    In turns, because a machine's speed drifts: only figures of one call may be compared, and best
    as ratios.

    Args:
        models: nets by name, or whatever else answers a batch.
        batch: ``[B, C, H, W]``, or one for each.
        rounds: how often each is timed, after one run to warm up.
        learning: time a training step without its update, answers and gradients; nets answer
            ``[B, K]`` and are left in the mode they are in.

    Raises:
        InputError: no round.
    """
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, got {rounds}")
    given = {
        name: (batch if isinstance(batch, Tensor) else batch[name]).contiguous(
            memory_format=torch.channels_last
        )
        for name in models
    }
    taken: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode(not learning):
        for done in range(rounds + 1):
            for name, model in models.items():
                start = time.perf_counter()
                answer = model(given[name])
                if learning:
                    answer.logsumexp(1).mean().backward()  # type: ignore[no-untyped-call]
                if done:
                    taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}
