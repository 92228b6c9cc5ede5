"""What a network costs: parameters, multiplications, time and memory."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nearfar.counting import count_on
from nearfar.errors import InputError

__all__ = ["Cost", "cost_of", "peak_memory", "time_batches"]


@dataclass(frozen=True)
class Cost:
    """The cost of a network that does not depend on the machine.

    Attributes:
        parameters: how many are learnt; shared ones count once.
        multiplications: multiplications of convolutions and dense layers for one image. Resizing
            and pooling are not counted; operators count as they are defined, also where a faster
            path multiplies less.
    """

    parameters: int
    multiplications: int


def cost_of(model: nn.Module, image: Tensor) -> Cost:
    """A network's parameters, and its multiplications for one image ``[C, H, W]``.

    :func:`nearfar.count` gives both layer by layer.

    Raises:
        InputError: the network does not take the image.
    """
    count = count_on(model, image)
    return Cost(count.parameters, count.multiplications)


def time_batches(
    models: Mapping[str, Callable[[Tensor], Tensor]],
    batch: Tensor | Mapping[str, Tensor],
    rounds: int = 7,
    learning: bool = False,
) -> dict[str, float]:
    """Seconds that each model takes for a batch: the median of several rounds, taken in turns.

    A machine's speed drifts: compare times of one call only, and best as ratios.

    Args:
        models: networks by name, or any function of a batch.
        batch: ``[B, C, H, W]``, or one batch for each model by name.
        rounds: how often each is timed, after one run to warm up.
        learning: time a training step without its update, forward and backward; models return
            ``[B, K]`` and stay in the mode they are in.

    Raises:
        InputError: ``rounds`` below 1.
    """
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, got {rounds}")
    batches = {
        name: (batch if isinstance(batch, Tensor) else batch[name]).contiguous(
            memory_format=torch.channels_last
        )
        for name in models
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode(not learning):
        for done in range(rounds + 1):
            for name, model in models.items():
                start = time.perf_counter()
                logits = model(batches[name])
                if learning:
                    logits.logsumexp(1).mean().backward()  # type: ignore[no-untyped-call]
                if done:
                    times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def peak_memory(module: nn.Module, forward: Callable[[], object]) -> int:
    """Most bytes of tensors alive at a time during a forward pass, besides those that existed before.

    On a CUDA device the allocator's peak; elsewhere every operator's results are followed until nothing
    refers to their storage any more.

    Args:
        module: whose parameters and buffers existed before, and on whose device it is measured.
        forward: runs it.

    Limits:
        Off CUDA only tensors that operators return in this thread count: not the working memory of
        compiled kernels and libraries.
    """
    tensor = next((t for t in (*module.parameters(), *module.buffers())), None)
    if tensor is not None and tensor.device.type == "cuda":
        device = tensor.device
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        forward()
        torch.cuda.synchronize(device)
        peak: int = torch.cuda.max_memory_allocated(device)
        return peak - before
    existing = {_key(t) for t in (*module.parameters(), *module.buffers())}
    following = _Following(existing)
    with following:
        forward()
    return following.peak


class _Following(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages of operators' results, and subtracts them when they are freed.

    Args:
        existing: storages that are not counted.
    """

    def __init__(self, existing: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.existing = existing
        self.alive: dict[int, int] = {}
        self.now = 0
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                self._follow(leaf)
        return outputs

    def _follow(self, tensor: Tensor) -> None:
        key = _key(tensor)
        storage = tensor.untyped_storage()
        if key in self.existing:
            return
        # In place, a storage may have grown.
        size = int(storage.nbytes())
        if key not in self.alive:
            weakref.finalize(storage, self._release, key).atexit = False
        self.now += size - self.alive.get(key, 0)
        self.alive[key] = size
        self.peak = max(self.peak, self.now)

    def _release(self, key: int) -> None:
        self.now -= self.alive.pop(key, 0)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
