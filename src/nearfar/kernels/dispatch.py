"""When the fast paths are taken, and which engine computes them."""

from __future__ import annotations

import os
import warnings
from functools import lru_cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from nearfar.kernels import dense
from nearfar.kernels.plan import Rates
from nearfar.reference import is_ordinary, is_reference_only

__all__ = ["can_use_fast_path", "engine_for"]


def can_use_fast_path(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether an operator may take its fast path for these tensors.

    What is not ordinary (see :func:`nearfar.reference.is_ordinary`) takes the composition of plain
    operators, which all kinds of tensors support.
    """
    return (
        not is_reference_only()
        and is_ordinary(x, weight, bias)
        and x.dim() == 4
        and x.numel() > 0
        and x.dtype == weight.dtype
        and x.device == weight.device
    )


def engine_for(x: Tensor) -> tuple[ModuleType, Rates]:
    """The engine that combines maps for tensors like this one, and its rates.

    On the CPU, kernels compiled by numba; for 16-bit types, plain PyTorch, and also, with a warning, where
    numba cannot be imported.
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
    except ImportError as cause:
        warnings.warn(
            f"the compiled kernels cannot be used ({cause}), so plain PyTorch computes the scale "
            f"operators, more slowly; reinstall numba, or set NEARFAR_KERNELS=torch",
            stacklevel=2,
        )
        return None
