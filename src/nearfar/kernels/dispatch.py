"""How an operator is computed: when its fast path is taken, and which engine computes that."""

from __future__ import annotations

import os
import warnings
from functools import lru_cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from nearfar.kernels import dense
from nearfar.kernels.composition import Composition
from nearfar.kernels.plan import Rates, SIPlan, make_plan
from nearfar.kernels.pyramid_concat import pyramid_concat
from nearfar.kernels.si_max import si_max
from nearfar.reference import is_ordinary, is_reference_only

__all__ = ["can_use_fast_path", "cast", "compute", "engine_for", "fast_path"]


def compute(
    composition: Composition, x: Tensor, weight: Tensor, bias: Tensor | None, return_winner: bool
) -> tuple[Tensor, Tensor | None]:
    """An operator's output by its fast path, or else as the algebra defines it.

    Args:
        composition: what the operator is.
        x: ``[B, C_in, H, W]`` (or ``[C_in, H, W]``).
        weight: ``[C, C_in / groups, k_h, k_w]``.
        bias: ``[C]``.
        return_winner: with ``how='max'`` only: whether the winner is needed, which else is ``None``.
    """
    fast = fast_path(x, weight, bias, composition)
    if fast is None:
        if return_winner:
            return composition.with_winner(x, weight, bias)
        return composition(x, weight, bias), None
    if composition.how == "concat":
        return pyramid_concat(*cast(x, weight, bias), *fast), None
    return si_max(*cast(x, weight, bias), *fast, return_winner)


def fast_path(
    x: Tensor, weight: Tensor, bias: Tensor | None, composition: Composition
) -> tuple[SIPlan, ModuleType] | None:
    """The plan and the engine of the fast path; ``None`` where the composition itself is to be computed."""
    scales = len(composition.scales)
    padded_evenly = all(before == after for before, after in composition.window.padding)
    if (
        scales == 1
        or composition.how not in ("max", "concat")
        or composition.padding_mode != "zeros"
        or not padded_evenly
        or not can_use_fast_path(x, weight, bias)
    ):
        return None
    x, weight, _ = cast(x, weight, None)
    engine, rates = engine_for(x)
    batch, inputs, height, width = (int(n) for n in x.shape)
    outputs = int(weight.shape[0])
    plan = make_plan((height, width), composition, (inputs, outputs), rates)
    total = outputs if composition.how == "max" else outputs * scales
    return (plan, engine) if plan.pays(batch, total) else None


def cast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Under autocast, what a convolution's arguments would be cast to."""
    if not torch.is_autocast_enabled(x.device.type):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(x.device.type)
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


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
