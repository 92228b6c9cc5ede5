"""When the fast paths are taken, and which engine computes them."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from nearfar.kernels import dense
from nearfar.kernels.plan import Rates
from nearfar.resampling import is_reference_only

__all__ = ["can_use_fast_path", "engine_for"]


def can_use_fast_path(x: Tensor, weight: Tensor) -> bool:
    """Whether an operator may take its fast path for these tensors.

    Tracing (``torch.compile``, ``torch.export``), function transforms (``torch.func``) and tensors
    that are not ordinary ones (meta, fake, distributed) take the composition of plain operators, which
    all of them support.
    """
    ordinary = all(type(t) in (Tensor, nn.Parameter) for t in (x, weight))
    return (
        not is_reference_only()
        and not torch.compiler.is_compiling()
        and ordinary
        and x.dim() == 4
        and x.numel() > 0
        and x.dtype == weight.dtype
        and x.device == weight.device
        and x.device.type != "meta"
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not any(_transformed(t) for t in (x, weight))
    )


def _transformed(t: Tensor) -> bool:
    """Inside ``vmap``, ``grad`` or ``jvp`` of torch.func, or a dual number of forward mode."""
    inside_dual_level: bool = forward_ad._current_level >= 0
    return inside_dual_level or torch._C._functorch.is_functorch_wrapped_tensor(t)


def engine_for(x: Tensor) -> tuple[ModuleType, Rates]:
    """The engine that combines maps for tensors like this one, and its rates.

    On the CPU, kernels compiled by numba; for 16-bit types, and where numba does not work, plain PyTorch.
    On other devices plain PyTorch; the Triton kernels, not measured on a GPU yet, with
    ``NEARFAR_KERNELS=triton``. ``NEARFAR_KERNELS=torch`` means plain PyTorch everywhere.
    """
    if x.device.type != "cpu":
        triton = _triton_engine() if x.device.type == "cuda" else None
        return (triton, triton.GPU) if triton else (dense, dense.GPU)
    if x.dtype in (torch.float32, torch.float64) and (numba := _numba_engine()) is not None:
        return numba, numba.CPU
    return dense, dense.CPU


@lru_cache(maxsize=1)
def _triton_engine() -> ModuleType | None:
    if os.environ.get("NEARFAR_KERNELS") != "triton":
        return None
    return import_module("nearfar.kernels.triton_engine")


@lru_cache(maxsize=1)
def _numba_engine() -> ModuleType | None:
    """The compiled kernels, unless the environment forbids them; numba is imported on the first call."""
    if os.environ.get("NEARFAR_KERNELS") == "torch":
        return None
    try:
        return import_module("nearfar.kernels.numba_engine")
    except ImportError:
        return None
