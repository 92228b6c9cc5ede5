"""How much memory a network's tensors take while it answers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["peak_memory"]


def peak_memory(module: nn.Module, answer: Callable[[], object]) -> int:
    """Bytes of tensors alive at most while something is answered, besides those that were there before.

    On a CUDA device what its allocator says; elsewhere every operator's results are followed from
    their making to the moment when nothing refers to their storage any more.

    Args:
        module: what answers; it says on which device.
        answer: makes it answer.

    Limits:
        Off CUDA only tensors are seen that operators give back in this thread: not what compiled kernels and
        libraries take besides while they work.
    """
    tensor = next((t for t in (*module.parameters(), *module.buffers())), None)
    if tensor is not None and tensor.device.type == "cuda":
        device = tensor.device
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        answer()
        torch.cuda.synchronize(device)
        peak: int = torch.cuda.max_memory_allocated(device)
        return peak - before
    there = {_key(t) for t in (*module.parameters(), *module.buffers())}
    following = _Following(there)
    with following:
        answer()
    return following.peak


class _Following(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operators give back, and takes them off when they go.

    Args:
        known: storages that count for nothing.
    """

    def __init__(self, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = known
        self.alive: dict[int, int] = {}
        self.now = 0
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(answer):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                self._follow(leaf)
        return answer

    def _follow(self, tensor: Tensor) -> None:
        key = _key(tensor)
        storage = tensor.untyped_storage()
        if key in self.known:
            return
        # In place, a storage may have grown.
        size = int(storage.nbytes())
        if key not in self.alive:
            weakref.finalize(storage, self._gone, key).atexit = False
        self.now += size - self.alive.get(key, 0)
        self.alive[key] = size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int) -> None:
        self.now -= self.alive.pop(key, 0)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
